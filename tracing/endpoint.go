package tracing

import (
	"errors"
	"net/url"
	"strings"
)

// Endpoint returns the URL that spans are posted to, or says what is wrong with the configured one. It repeats nothing
// that may be secret.
func Endpoint(raw string) (string, error) {
	const use = "use the URL of an OTLP receiver over HTTP, such as http://localhost:4318"
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return "", errors.New("the URL cannot be read: " + use)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return "", errors.New("the URL needs http:// or https:// and a host: " + use)
	case u.User != nil:
		return "", errors.New("the URL holds a user: give credentials as OTEL_EXPORTER_OTLP_HEADERS=Authorization=…")
	case u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("the URL must end after its path: " + use)
	}
	if strings.Trim(u.Path, "/") == "" { // OpenTelemetry's OTLP exporter specification, "Endpoint URLs for OTLP/HTTP"
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}

// EndpointOf returns the endpoint that the standard variables name, "" = none. It may be malformed.
func EndpointOf(getenv func(string) string) string {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return ""
	}
	if u := getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"); u != "" {
		return u
	}
	base := getenv("OTEL_EXPORTER_OTLP_ENDPOINT")
	if base == "" {
		return ""
	}
	return strings.TrimRight(base, "/") + "/v1/traces" // the same specification: a base, whatever its path is
}
