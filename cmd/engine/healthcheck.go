package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	// healthTry bounds one question; the engine itself gives its store 2 s to answer.
	healthTry = 3 * time.Second
	// healthPause is the time between two questions of --wait.
	healthPause = 250 * time.Millisecond
	// healthBody is how much of an answer is read; a real one is far smaller.
	healthBody = 64 << 10
)

// healthcheckCommand asks an engine whether it is ready. It is in the program because images from scratch have no curl.
func healthcheckCommand(o *options) *cobra.Command {
	var (
		wait   time.Duration
		target string
	)
	c := &cobra.Command{
		Use: "healthcheck", Short: "Exit 0 when the engine at --listen is ready, for containers and scripts", Args: noArgs,
		Long: `healthcheck asks GET /readyz of the engine on this machine, at the address that --listen, MSGCTL_LISTEN or the
configuration says. It exits with 0 when the engine is ready, and with 1 and the reason when it is not.`,
		Example: `  engine healthcheck
  engine healthcheck --wait 30s
  engine healthcheck --url https://msg.example.com
  engine healthcheck --url http://127.0.0.1:8020/healthz`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if wait < 0 {
				return usageError{fmt.Errorf("--wait %s is negative: use a duration such as 30s", wait)}
			}
			address, err := healthURL(*o, target)
			if err != nil {
				return usageError{err}
			}
			return awaitHealth(cmd.Context(), address, wait)
		},
	}
	c.Flags().DurationVar(&wait, "wait", 0, "ask again until the engine is ready, for this `duration` at most")
	c.Flags().StringVar(&target, "url", "", "ask the engine at this `URL`; without a path it is asked for /readyz")
	return c
}

// healthURL returns what to ask: the given URL, or the one that follows from the configuration.
func healthURL(o options, given string) (string, error) {
	if given == "" {
		cfg, err := o.read()
		if err != nil {
			return "", err
		}
		host, port, err := net.SplitHostPort(cfg.Listen)
		if err != nil {
			return "", fmt.Errorf("listen: %w: use HOST:PORT, or say --url", err)
		}
		// An engine that listens everywhere is asked on loopback.
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
			if ip != nil && ip.To4() == nil {
				host = "::1"
			}
		}
		return "http://" + net.JoinHostPort(host, port) + "/readyz", nil
	}
	u, err := url.Parse(given)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		// The text itself may hold a password.
		return "", errors.New("--url: use http://HOST:PORT or https://HOST:PORT")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/readyz"
	}
	return u.String(), nil
}

// awaitHealth asks until the answer is yes or the time is over, and once at least. The error is that of the last answer.
func awaitHealth(ctx context.Context, address string, wait time.Duration) error {
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true}, // and no proxy: the question is about this address
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	over := time.NewTimer(wait)
	defer over.Stop()
	for {
		err := askHealth(ctx, client, address)
		if err == nil || wait == 0 {
			return err
		}
		pause := time.NewTimer(healthPause)
		select {
		case <-pause.C:
		case <-over.C:
			pause.Stop()
			return err
		case <-ctx.Done():
			pause.Stop()
			return err
		}
	}
}

// askHealth asks once.
func askHealth(ctx context.Context, client *http.Client, address string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTry)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	resp, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, healthBody))
	if resp.StatusCode/100 == 2 {
		return nil
	}
	if why := trouble(body); why != "" {
		return fmt.Errorf("not ready: %s", why)
	}
	return fmt.Errorf("not ready: %s", resp.Status)
}

// trouble names the parts that do not work, from the answer of /readyz; "" when it says nothing of the kind.
func trouble(body []byte) string {
	var h struct {
		Parts map[string]string `json:"parts"`
	}
	if json.Unmarshal(body, &h) != nil {
		return ""
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(h.Parts)) {
		if state := h.Parts[name]; state != "ok" {
			parts = append(parts, name+": "+state)
		}
	}
	return strings.Join(parts, "; ")
}
