package api

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// batchMedia are the names under which newline-delimited JSON goes.
var batchMedia = []string{"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}

// batchRow is one line of a batch: a message, or why it was refused.
type batchRow struct {
	ref string
	id  delivery.MessageID
	bad *sdk.Error
	ok  bool // id is of a message that was offered to the store
}

// sendBatch accepts many messages, one JSON object in a line. A bad row is refused alone. All good rows are stored in
// one transaction, or none of them.
func sendBatch(c *call) error {
	if _, err := c.checkMedia(batchMedia...); err != nil {
		return err
	}
	keyText, err := c.idempotencyKey()
	if err != nil {
		return err
	}
	if c.r.ContentLength > c.a.Limits.BatchBody {
		return tooLarge(c.a.Limits.BatchBody)
	}
	k := c.a.checker(c)
	k.followed = c.join()
	rows, messages, sum, err := k.rows(c.body(c.a.Limits.BatchBody), keyText != "")
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return fail("body_required", "the batch is empty: send one JSON object in each line")
	}
	var key *store.IdempotencyKey
	if keyText != "" {
		key = &store.IdempotencyKey{Route: batchRoute, Key: keyText, Fingerprint: sum, Expires: k.now.Add(keyLife)}
		leave, err := c.a.running.enter(c.ctx(), flight{c.tenant, batchRoute, keyText}, c.a.Limits.KeyWait)
		if err != nil {
			return err
		}
		defer leave()
	}
	var acc store.Accepted
	if len(messages) > 0 {
		acc, err = c.a.Accept.Accept(c.ctx(), c.tenant, store.Acceptance{Now: k.now, Key: key, Messages: messages})
	} else if acc, err = c.a.replay(c.ctx(), c.tenant, key); errors.Is(err, store.ErrNotFound) {
		err = nil // every row is bad, and was the first time
	}
	if err != nil {
		return err
	}
	return c.batchAnswer(rows, acc)
}

// rows reads and checks every line. hashed asks for the fingerprint of all rows: that of their canonical forms.
func (k *checker) rows(body io.Reader, hashed bool) (
	rows []batchRow, messages []store.NewMessage, sum [32]byte, err error,
) {
	lines := bufio.NewReaderSize(body, 64<<10)
	limit := int(k.a.Limits.Body)
	hash := sha256.New()
	var long []byte
	for {
		text, rerr := lines.ReadSlice('\n')
		if errors.Is(rerr, bufio.ErrBufferFull) || len(long) > 0 {
			long = append(long, text...)
			if errors.Is(rerr, bufio.ErrBufferFull) {
				continue
			}
			text = long
		}
		if rerr != nil && rerr != io.EOF {
			return nil, nil, sum, bodyError(rerr)
		}
		if text = bytes.TrimSpace(text); len(text) > 0 {
			if len(rows) == k.a.Limits.BatchRows {
				return nil, nil, sum, fail("batch_too_large", "a batch has at most %d rows", k.a.Limits.BatchRows)
			}
			if err := k.ctx.Err(); err != nil {
				return nil, nil, sum, err
			}
			row, m, err := k.row(text, len(rows)+1, limit)
			if err != nil {
				return nil, nil, sum, err
			}
			if row.ok {
				messages = append(messages, m)
			}
			rows = append(rows, row)
			if hashed {
				f := fingerprint(text)
				hash.Write(f[:])
			}
		}
		long = long[:0]
		if rerr == io.EOF {
			hash.Sum(sum[:0])
			return rows, messages, sum, nil
		}
	}
}

// row checks one line. The number of the row is written into the last two bytes of the message's id, in the place of
// random bits: when the batch is repeated, the store's results say by themselves which rows they belong to, even where
// a row that was good then is bad now (its send_at has passed) or the other way round.
func (k *checker) row(text []byte, number, limit int) (batchRow, store.NewMessage, error) {
	var in messageIn
	var row batchRow
	if len(text) > limit {
		row.bad = fail("payload_too_large", "the row is larger than %d bytes", limit)
		return row, store.NewMessage{}, nil
	}
	err := decode(text, &in)
	var m checked
	if err == nil {
		m, err = k.message(&in)
	}
	row.ref = clip(in.ClientRef, 4*maxClientRef)
	if errors.As(err, &row.bad) {
		return row, store.NewMessage{}, nil
	}
	if err != nil {
		return row, store.NewMessage{}, err
	}
	m.ID = k.newID()
	m.ID[14], m.ID[15] = byte(number>>8), byte(number)
	row.id, row.ok = m.ID, true
	return row, m.NewMessage, nil
}

func rowOf(id delivery.MessageID) int { return int(id[14])<<8 | int(id[15]) }

// batchAnswer writes one line for each row, in their order.
func (c *call) batchAnswer(rows []batchRow, acc store.Accepted) error {
	results := make([]*store.AcceptResult, len(rows)+1)
	for i := range acc.Results {
		if n := rowOf(acc.Results[i].ID); n > 0 && n <= len(rows) {
			results[n] = &acc.Results[i]
		}
	}
	if acc.Replayed {
		c.w.Header()["Idempotency-Replayed"] = []string{"true"}
	}
	buf := c.a.buffer()
	defer c.a.release(buf)
	b := buf.AvailableBuffer()
	for i := range rows {
		row, res := &rows[i], results[i+1]
		b = append(b, '{')
		b = appendInt(b, "row", int64(i+1))
		switch {
		case res != nil:
			b = appendText(b, "id", res.ID.String())
			b = appendText(b, "status", res.Status.String())
			b = appendText(b, "reason", res.Reason)
			b = appendText(b, "client_ref", row.ref)
		default:
			bad := row.bad
			if bad == nil {
				bad = fail("row_not_accepted", "this row was refused when the batch was sent first")
			}
			own := *bad
			own.Type = c.a.problemURI(own.Code)
			b = appendText(b, "client_ref", row.ref)
			doc, err := encode(nil, &own)
			if err != nil {
				return err
			}
			b = appendRaw(b, "error", doc)
		}
		b = append(b, '}', '\n')
	}
	c.write(http.StatusOK, batchMedia[0], b)
	return nil
}

func appendNumber(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }
