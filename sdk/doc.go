// Package sdk is the Go client of the msgctl engine. It uses only the standard library.
package sdk
