package api

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/msgctl/msgctl/sdk"
)

// checkMedia refuses a body of another kind than the route takes, before any of it is read.
func (c *call) checkMedia(types ...string) (string, error) {
	if enc := c.r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") && !c.gzipped() {
		return "", fail("unsupported_encoding", "Content-Encoding %s is not taken: send the body as it is or with gzip", quoted(enc))
	}
	given := c.r.Header["Content-Type"]
	if len(given) == 1 && given[0] == types[0] {
		return types[0], nil
	}
	if len(given) != 1 || given[0] == "" {
		return "", fail("unsupported_media_type", "the Content-Type is missing: use %s", strings.Join(types, " or "))
	}
	media, params, err := mime.ParseMediaType(given[0])
	if err != nil || !slices.Contains(types, media) {
		return "", fail("unsupported_media_type", "Content-Type %s is not taken here: use %s", quoted(given[0]),
			strings.Join(types, " or "))
	}
	if cs := params["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") && !strings.EqualFold(cs, "us-ascii") {
		return "", fail("unsupported_media_type", "charset %s is not taken: use utf-8", quoted(cs))
	}
	return media, nil
}

// gzipped reports whether the body is compressed.
func (c *call) gzipped() bool { return strings.EqualFold(c.r.Header.Get("Content-Encoding"), "gzip") }

// body returns the body, uncompressed where it was not; reading more than max bytes of it is an error.
func (c *call) body(max int64) io.Reader {
	if !c.gzipped() {
		return c.metered(http.MaxBytesReader(c.w, c.r.Body, max))
	}
	return c.metered(http.MaxBytesReader(c.w, &unzip{from: http.MaxBytesReader(c.w, c.r.Body, max)}, max))
}

// unzip is a gzip reader that reports a broken header as an error of Read.
type unzip struct {
	from io.Reader
	zip  *gzip.Reader
}

func (u *unzip) Read(b []byte) (n int, err error) {
	if u.zip == nil {
		if u.zip, err = gzip.NewReader(u.from); err != nil {
			return 0, err
		}
	}
	return u.zip.Read(b)
}

func (u *unzip) Close() error { return nil }

// readBody reads a whole body of at most max bytes into buf.
func (c *call) readBody(buf *bytes.Buffer, max int64) error {
	if c.r.ContentLength > max {
		return tooLarge(max)
	}
	if c.r.ContentLength > 0 {
		buf.Grow(int(c.r.ContentLength) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(c.body(max))
	return bodyError(err)
}

func tooLarge(max int64) error {
	return fail("payload_too_large", "the body is larger than %d bytes", max)
}

// bodyError turns what reading a body can end with into a problem.
func bodyError(err error) error {
	var big *http.MaxBytesError
	var refused *sdk.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return refused
	case errors.As(err, &big):
		return tooLarge(big.Limit)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum):
		return fail("invalid_encoding", "the body says it is gzip and is not")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fail("request_timeout", "the body came too slowly")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fail("invalid_json", "the body ends before the length that Content-Length promised")
	}
	return fail("invalid_json", "the body cannot be read: check Content-Length and Transfer-Encoding")
}

// decodeBody reads a JSON body into v.
func (c *call) decodeBody(v any) error {
	if _, err := c.checkMedia("application/json"); err != nil {
		return err
	}
	buf := c.a.buffer()
	defer c.a.release(buf)
	if err := c.readBody(buf, c.a.Limits.Body); err != nil {
		return err
	}
	return decode(buf.Bytes(), v)
}

// decodeOptionalBody is decodeBody for a route whose body may be left out.
func (c *call) decodeOptionalBody(v any) error {
	if c.r.ContentLength == 0 {
		return nil
	}
	return c.decodeBody(v)
}
