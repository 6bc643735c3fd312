package api

import (
	"log/slog"
	"net/http"
	"time"
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
