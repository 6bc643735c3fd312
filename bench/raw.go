package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk/webhook"
)

const (
	mailConns = 20
	httpConns = 64
	// rawTimeout bounds a whole raw loop.
	rawTimeout = 2 * time.Minute
)

// spread calls do n times on the given number of goroutines and returns the rate.
func spread(n, workers int, do func(worker int) error) (float64, error) {
	var left atomic.Int64
	left.Store(int64(n))
	errs := make([]error, workers)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range workers {
		wg.Go(func() {
			for errs[i] == nil && left.Add(-1) >= 0 {
				errs[i] = do(i)
			}
		})
	}
	wg.Wait()
	return float64(n) / time.Since(start).Seconds(), errors.Join(errs...)
}

// rawSMTP offers one message again and again on 20 connections: the envelope in one write, the message in another.
func rawSMTP(ctx context.Context, sim simulated, n int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, rawTimeout)
	defer cancel()
	type session struct {
		nc net.Conn
		r  *bufio.Reader
	}
	var sessions [mailConns]session
	answer := func(s *session) error {
		line, err := s.r.ReadSlice('\n')
		if err == nil && line[0] != '2' && line[0] != '3' {
			err = fmt.Errorf("answer %q", line)
		}
		return err
	}
	login := base64.StdEncoding.EncodeToString([]byte("\x00raw\x00" + sandbox.Password))
	for i := range sessions {
		nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", sim.SMTP)
		if err != nil {
			return 0, err
		}
		defer nc.Close()
		defer context.AfterFunc(ctx, func() { _ = nc.Close() })()
		s := &sessions[i]
		s.nc, s.r = nc, bufio.NewReader(nc)
		for _, command := range []string{"", "HELO raw.test\r\n", "AUTH PLAIN " + login + "\r\n"} {
			if _, err := io.WriteString(nc, command); err != nil {
				return 0, err
			}
			if err := answer(s); err != nil {
				return 0, err
			}
		}
	}
	envelope := []byte("MAIL FROM:<news@sim.test>\r\nRCPT TO:<person@example.test>\r\nDATA\r\n")
	mail := rawMail()
	return spread(n, mailConns, func(i int) error {
		s := &sessions[i]
		if _, err := s.nc.Write(envelope); err != nil {
			return err
		}
		for range 3 {
			if err := answer(s); err != nil {
				return err
			}
		}
		if _, err := s.nc.Write(mail); err != nil {
			return err
		}
		return answer(s)
	})
}

// rawMail is the message that the engine makes of the same content, with its final dot.
func rawMail() []byte {
	mail := strings.Join([]string{
		"From: msgctl <news@sim.test>", "To: person@example.test", "Subject: Your weekly digest is here",
		"Date: Thu, 15 Oct 2026 09:00:00 +0000", "Message-ID: <msg_0000000000000000000000000@sim.test>",
		"MIME-Version: 1.0",
		`Content-Type: multipart/alternative; boundary="b0123456789abcdef"`, "",
		"--b0123456789abcdef", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 7bit", "", mailText,
		"--b0123456789abcdef", "Content-Type: text/html; charset=utf-8", "Content-Transfer-Encoding: 7bit", "", mailHTML,
		"--b0123456789abcdef--", ".", "",
	}, "\n")
	return []byte(strings.ReplaceAll(mail, "\n", "\r\n"))
}

// rawPost posts a body n times.
func rawPost(ctx context.Context, url string, header http.Header, body []byte, n int) (float64, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: httpConns, MaxConnsPerHost: httpConns}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	return spread(n, httpConns, func(int) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header = header
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("answered %s", resp.Status)
		}
		return nil
	})
}

// rawHook posts one webhook, signed before, on 64 connections.
func rawHook(ctx context.Context, sim simulated, n int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, rawTimeout)
	defer cancel()
	body := []byte(`{"type":"order.paid","timestamp":"2026-10-15T09:00:00Z","data":` + hookData + `}`)
	header, err := webhook.Sign(sandbox.HookSecret, "msg_0000000000000000000000000", time.Now(), body)
	if err != nil {
		return 0, err
	}
	header.Set("Content-Type", "application/json")
	return rawPost(ctx, sim.URL+"/sim/hook/raw/0", header, body, n)
}

// rawWhatsApp posts one text on 64 connections while its statuses come to a sink that only counts them. It ends when
// all have.
func rawWhatsApp(ctx context.Context, sim simulated, n int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, rawTimeout)
	defer cancel()
	var statuses atomic.Int64
	all := make(chan struct{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	sink := &http.Server{ReadHeaderTimeout: 5 * time.Second}
	sink.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		got := int64(bytes.Count(body, []byte(`"status":"delivered"`)))
		if err == nil && got > 0 && statuses.Add(got)-got < int64(n) && statuses.Load() >= int64(n) {
			close(all)
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = sink.Serve(ln)
	}()
	defer func() {
		_ = sink.Close()
		<-done
	}()
	if err := sim.callback("http://" + ln.Addr().String()); err != nil {
		return 0, err
	}
	header := http.Header{"Authorization": {"Bearer " + sandbox.WhatsAppToken}, "Content-Type": {"application/json"}}
	body := []byte(`{"messaging_product":"whatsapp","recipient_type":"individual","to":"12022000000","type":"text",` +
		`"text":{"body":` + strconv.Quote(chatText) + `},"biz_opaque_callback_data":"msg_0000000000000000000000000"}`)
	start := time.Now()
	if _, err := rawPost(ctx, sim.URL+"/v25.0/"+sandbox.PhoneNumberID+"/messages", header, body, n); err != nil {
		return 0, err
	}
	select {
	case <-all:
		return float64(n) / time.Since(start).Seconds(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("%d statuses of %d came: %w", statuses.Load(), n, ctx.Err())
	}
}
