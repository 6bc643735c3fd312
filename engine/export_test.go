package engine

import "net/http"

// InProcess is the transport of clients inside the process.
func InProcess(h http.Handler) http.RoundTripper { return inProcess{h} }
