// Package sdk is the Go client of the msgctl engine.
//
// It uses only the standard library. A Client is made once and shared: every method is safe for concurrent use. Calls
// that fail for a passing reason are tried again, with one idempotency key for all tries of a POST, so that a message is
// accepted once however often its request had to travel.
package sdk
