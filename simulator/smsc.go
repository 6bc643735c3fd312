package simulator

import (
	"context"
	"errors"
	"net"
)

type smsc struct{}

func newSMSC(*Sim) *smsc { return &smsc{} }

func (*smsc) serve(context.Context, net.Listener) {}
func (*smsc) close()                              {}
func (*smsc) reply(_, _, _, _ string) error       { return errors.ErrUnsupported }
