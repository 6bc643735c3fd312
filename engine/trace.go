package engine

import (
	"context"
	"fmt"

	"github.com/msgctl/msgctl/tracing"
)

func (c *TelemetryConfig) check() error {
	if c.OTLP != "" {
		if _, err := tracing.Endpoint(c.OTLP); err != nil {
			return fmt.Errorf("configuration: telemetry.otlp: %w", err)
		}
	}
	if c.Sample != nil {
		if err := tracing.CheckRatio(*c.Sample); err != nil {
			return fmt.Errorf("configuration: telemetry.sample: %w", err)
		}
	}
	return nil
}

// openTracer starts to trace; nil = nobody wants traces.
func (e *Engine) openTracer(ctx context.Context) (err error) {
	c := &e.cfg.Telemetry
	if c.OTLP == "" && c.Exporter == nil {
		return nil
	}
	ratio := 1.0
	if c.Sample != nil {
		ratio = *c.Sample
	}
	e.tracer, err = tracing.Open(ctx, tracing.Options{
		Endpoint: c.OTLP, Exporter: c.Exporter, Ratio: ratio, Node: e.cfg.Node, Version: e.cfg.Version, Log: e.cfg.Logger,
		Metrics: e.metrics,
	})
	return err
}
