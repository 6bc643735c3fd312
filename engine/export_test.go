package engine

import "net/http"

// InProcess is the transport of clients inside the process.
func InProcess(h http.Handler) http.RoundTripper { return inProcess{h} }

// SetSpace makes the disk check ask f. It must be called before Start.
func (e *Engine) SetSpace(f func(dir string) (free, total uint64, err error)) { e.door.space = f }
