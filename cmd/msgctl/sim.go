package main

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/simulator"
)

func (a *app) simCmd() *cobra.Command {
	var (
		o                simulator.Options
		smpp, smtp, http int
	)
	cmd := &cobra.Command{
		Use: "sim", Short: "Run the simulator of providers alone, on loopback only", Args: a.args(),
		Long: "Run the simulator alone: an SMSC, the WhatsApp Cloud API, a mail server and a\n" +
			"sink for webhooks. The recipient decides what happens: msgctl help sim-outcomes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, l := range []struct {
				name string
				port int
				to   *string
			}{{"smpp-port", smpp, &o.SMPPAddr}, {"smtp-port", smtp, &o.SMTPAddr}, {"http-port", http, &o.HTTPAddr}} {
				if l.port < 0 || l.port > 65535 {
					return &usageError{what: fmt.Sprintf("--%s %d: 0 to 65535", l.name, l.port)}
				}
				*l.to = fmt.Sprintf("127.0.0.1:%d", l.port)
			}
			if a.flags.verbose {
				o.Log = slog.New(slog.NewTextHandler(a.err, nil))
			}
			s, err := simulator.Start(cmd.Context(), o)
			if err != nil {
				return fmt.Errorf("%w; use another port, or 0 for a free one", err)
			}
			_, err = fmt.Fprintf(a.out, "✓ SMPP %s · SMTP %s · WhatsApp and hooks %s\n", s.SMPPAddr(), s.SMTPAddr(), s.URL())
			if err == nil {
				<-cmd.Context().Done()
			}
			return errors.Join(err, s.Close())
		},
	}
	f := cmd.Flags()
	f.IntVar(&smpp, "smpp-port", 2775, "the SMSC's `PORT`; 0 = a free one")
	f.IntVar(&smtp, "smtp-port", 1025, "the mail server's `PORT`; 0 = a free one")
	f.IntVar(&http, "http-port", 8025, "the `PORT` of WhatsApp and hooks; 0 = a free one")
	f.DurationVar(&o.Latency, "latency", 0, "answer after `D`")
	f.DurationVar(&o.ReceiptDelay, "receipt-delay", 200*time.Millisecond, "send receipts after `D`")
	f.StringVar(&o.WhatsAppCallback, "whatsapp-callback", "", "post WhatsApp statuses to `URL`")
	return cmd
}
