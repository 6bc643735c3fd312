// Package check holds the tests of the chart and of the compose files.
//
// It is a module of its own, so that Kubernetes, Helm and Compose stay out of the product's go.mod. The test of package
// deploy runs it.
package check
