package simulator

import (
	"errors"
	"net/http"
)

type meta struct{}

func newMeta(*Sim) *meta { return &meta{} }

func (*meta) routes(*http.ServeMux)      {}
func (*meta) close()                     {}
func (*meta) setCallback(string)         {}
func (*meta) reply(_, _, _ string) error { return errors.ErrUnsupported }
