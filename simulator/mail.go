package simulator

import (
	"context"
	"net"
)

type mailServer struct{}

func newMailServer(*Sim) *mailServer { return &mailServer{} }

func (*mailServer) serve(context.Context, net.Listener) {}
func (*mailServer) close()                              {}
