// Package simulator is a provider of all four channels on loopback: an SMSC, the WhatsApp Cloud API, an SMTP server and
// a webhook sink, with the recipient deciding what happens.
//
// It speaks the real protocols on real sockets, sends receipts back through the real callback path, signed, and keeps a
// ledger of everything it saw. A connector cannot tell it from a provider.
package simulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"

	"github.com/msgctl/msgctl/delivery"
)

// Options configures a simulator. The zero value listens on free loopback ports.
type Options struct {
	SMPPAddr string // default 127.0.0.1:0
	SMTPAddr string // default 127.0.0.1:0
	HTTPAddr string // default 127.0.0.1:0; WhatsApp, webhooks and the ledger
	Clock    clockwork.Clock
	Log      *slog.Logger
	// Latency is how long the simulator takes to answer a submission, ReceiptDelay how long after that an ordinary
	// receipt follows. Both 0 by default.
	Latency      time.Duration
	ReceiptDelay time.Duration
	// Password opens every SMPP bind and SMTP login; empty accepts any. The system_id or user name is the account's name.
	Password string
	// TLSConfig, when set, makes the mail server offer STARTTLS.
	TLSConfig *tls.Config
	// WhatsAppToken is the bearer token that the WhatsApp API asks for; empty accepts any.
	WhatsAppToken string
	// WhatsAppSecret signs WhatsApp callbacks (X-Hub-Signature-256).
	WhatsAppSecret string
	// WhatsAppCallback is where WhatsApp statuses and inbound messages are posted; see SetWhatsAppCallback.
	WhatsAppCallback string
	// HookSecret, when set, makes the webhook sink refuse deliveries whose Standard Webhooks signature is wrong.
	HookSecret string
	// LedgerLimit bounds the entries kept; 0 means 2,000,000. Beyond it the oldest are dropped and counted.
	LedgerLimit int
}

// Sim is a running simulator.
type Sim struct {
	opt    Options
	clock  clockwork.Clock
	log    *slog.Logger
	ledger *Ledger
	script *script

	smpp, smtp, web net.Listener
	http            *http.Server
	smsc            *smsc
	mail            *mailServer
	meta            *meta
	wg              sync.WaitGroup
	stop            context.CancelFunc
	once            sync.Once
}

// Start listens and serves until Close.
func Start(ctx context.Context, opt Options) (*Sim, error) {
	if opt.Clock == nil {
		opt.Clock = clockwork.NewRealClock()
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Sim{opt: opt, clock: opt.Clock, log: opt.Log, ledger: newLedger(opt.LedgerLimit), script: newScript(opt.ReceiptDelay)}
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	for _, l := range []struct {
		to   *net.Listener
		addr string
	}{{&s.smpp, opt.SMPPAddr}, {&s.smtp, opt.SMTPAddr}, {&s.web, opt.HTTPAddr}} {
		addr := l.addr
		if addr == "" {
			addr = "127.0.0.1:0"
		}
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("simulator: listen on %s: %w", addr, err), s.Close())
		}
		*l.to = ln
	}
	s.smsc = newSMSC(s)
	s.mail = newMailServer(s)
	s.meta = newMeta(s)
	mux := http.NewServeMux()
	s.meta.routes(mux)
	s.hookRoutes(mux)
	s.controlRoutes(mux)
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	for _, serve := range []func(){
		func() { s.smsc.serve(ctx, s.smpp) },
		func() { s.mail.serve(ctx, s.smtp) },
		func() { _ = s.http.Serve(s.web) },
	} {
		s.wg.Go(serve)
	}
	return s, nil
}

// Close stops listening, drops connections and waits. Safe twice.
func (s *Sim) Close() error {
	s.once.Do(func() {
		s.stop()
		for _, ln := range []net.Listener{s.smpp, s.smtp, s.web} {
			if ln != nil {
				_ = ln.Close()
			}
		}
		if s.smsc != nil {
			s.smsc.close()
			s.mail.close()
			s.meta.close()
			_ = s.http.Close()
		}
		s.wg.Wait()
	})
	return nil
}

// SMPPAddr returns the SMSC's host:port.
func (s *Sim) SMPPAddr() string { return s.smpp.Addr().String() }

// SMTPAddr returns the mail server's host:port.
func (s *Sim) SMTPAddr() string { return s.smtp.Addr().String() }

// URL returns the base URL of the HTTP side, without a slash at the end.
func (s *Sim) URL() string { return "http://" + s.web.Addr().String() }

// SetWhatsAppCallback sets where WhatsApp statuses are posted, once the engine's address is known.
func (s *Sim) SetWhatsAppCallback(url string) { s.meta.setCallback(url) }

// Ledger returns what the simulator saw.
func (s *Sim) Ledger() *Ledger { return s.ledger }

// Fail makes the next n submissions of an account fail with the fault; n < 0 means until Heal. The account is the SMPP
// system_id, the SMTP user name, the WhatsApp phone number id, or the first segment of a webhook path below /sim/hook/.
func (s *Sim) Fail(account string, n int, f Fault) { s.script.fail(account, n, f) }

// Slow delays every answer to an account.
func (s *Sim) Slow(account string, d time.Duration) { s.script.slow(account, d) }

// Heal ends Fail and Slow for an account.
func (s *Sim) Heal(account string) { s.script.heal(account) }

// Bound returns how many SMPP sessions of an account can take receipts now.
func (s *Sim) Bound(account string) int { return s.smsc.bound(account) }

// Reply sends text from a person to the account's callback or session as an inbound message.
func (s *Sim) Reply(ch delivery.Channel, account, from, to, text string) error {
	switch ch {
	case delivery.SMS:
		return s.smsc.reply(account, from, to, text)
	case delivery.WhatsApp:
		return s.meta.reply(from, to, text)
	}
	return fmt.Errorf("simulator: no replies on %s", ch)
}
