package api

import (
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/msgctl/msgctl/admission"
)

// Server makes an HTTP server for a handler with the bounds that a server on the internet needs. A header that takes
// more than 5 s or 64 KiB, a body that takes more than 60 s and an answer that takes more than 90 s end the connection;
// imports and downloads get more time for as long as something moves.
func Server(h http.Handler, log *slog.Logger) *http.Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       60 * time.Second,
		WriteTimeout:      90 * time.Second, // above the longest long poll
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what clients do wrong on their connections
	}
}

// Connections bounds how many connections of ln the server has open at once. Serve what it returns with srv alone.
func Connections(srv *http.Server, ln net.Listener, most int) *admission.Listener {
	bounded := admission.Listen(ln, most, tooManyConnections)
	bounded.Attach(srv)
	return bounded
}

// tooManyConnections is the answer to a connection that there is no room for. Nothing is read from it.
func tooManyConnections() []byte {
	p := problemOf("overloaded")
	body := `{"type":"about:blank","code":"` + p.code + `","status":503,"title":"` + p.title +
		`","detail":"too many connections are open; nothing was done"}`
	return []byte("HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: " +
		strconv.Itoa(1+rand.IntN(5)) + "\r\nConnection: close\r\nContent-Length: " + strconv.Itoa(len(body)) +
		"\r\n\r\n" + body)
}
