package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/smpp"
)

// smppWindow is how many submit_sm wait for their answer at once in the raw loop.
const smppWindow = 200

// rawSMPP submits one text again and again on one bind and acknowledges the receipts. It ends when all answers and all
// receipts have come.
func rawSMPP(ctx context.Context, sim simulated, n int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, rawTimeout)
	defer cancel()
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", sim.SMPP)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { _ = nc.Close() })()
	bind := smpp.Bind{SystemID: "raw", Password: sandbox.Password}
	r := smpp.NewReader(nc)
	if _, err := nc.Write(bind.Append(nil, smpp.BindTransceiver, 1)); err != nil {
		return 0, err
	}
	if h, _, err := r.Next(); err != nil || h.Status != smpp.ROK {
		return 0, fmt.Errorf("bind: status %d: %w", h.Status, err)
	}
	m := smpp.Message{
		Source: smpp.Address{TON: smpp.TONAlphanumeric, Addr: "msgctl"}, RegisteredDelivery: 1, Short: []byte(smsText),
		Dest: smpp.Address{TON: smpp.TONInternational, NPI: smpp.NPIISDN, Addr: "12022000000"},
	}
	pdu := m.Append(nil, smpp.SubmitSM, 0)

	out := smpp.NewWriter(nc)
	var writing sync.WaitGroup
	writing.Go(func() { _ = out.Run() })
	defer writing.Wait()
	defer out.Close()
	start := time.Now()
	sent := 0
	submit := func(most int) error {
		for ; sent < n && most > 0; most-- {
			sent++
			smpp.SetSequence(pdu, uint32(sent)+1)
			if _, err := out.Add(pdu); err != nil {
				return err
			}
		}
		return nil
	}
	if err := submit(smppWindow); err != nil {
		return 0, err
	}
	var ack []byte
	for answers, receipts := 0, 0; answers < n || receipts < n; {
		h, _, err := r.Next()
		switch {
		case err != nil:
			return 0, fmt.Errorf("%d answers and %d receipts of %d came: %w", answers, receipts, n, err)
		case h.Status != smpp.ROK:
			return 0, fmt.Errorf("command %#x has status %d", uint32(h.Command), h.Status)
		case h.Command == smpp.SubmitSMResp:
			answers++
			if err := submit(1); err != nil {
				return 0, err
			}
		case h.Command == smpp.DeliverSM:
			receipts++
			ack = smpp.AppendID(ack[:0], smpp.Header{Command: smpp.DeliverSMResp, Sequence: h.Sequence}, "")
			if _, err := out.Add(ack); err != nil {
				return 0, err
			}
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}
