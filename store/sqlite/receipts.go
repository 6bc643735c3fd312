package sqlite

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const (
	digestSize = 8
	// seenDigests is how many receipts a message remembers to tell a repeat; a message gets about three.
	seenDigests = 64
)

// Report stores receipts and moves the messages they belong to.
func (s *Store) Report(
	ctx context.Context, sys store.System, now time.Time, keep time.Duration, receipts []delivery.Receipt,
) ([]store.Reported, error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	for i := range receipts {
		switch receipts[i].Status {
		case delivery.StatusSent, delivery.StatusDelivered, delivery.StatusRead, delivery.StatusUndelivered,
			delivery.StatusFailed:
		default:
			return nil, fmt.Errorf("report: receipt %d says %s", i, receipts[i].Status)
		}
	}
	if len(receipts) == 0 {
		return nil, nil
	}
	type result struct {
		reported []store.Reported
		refused  int
	}
	out, err := write(ctx, s, len(receipts), func(t *tx) (result, error) {
		r := result{reported: make([]store.Reported, len(receipts))}
		for i := range receipts {
			var err error
			r.reported[i], err = t.report(&receipts[i], now, keep)
			if errors.Is(err, store.ErrParkedFull) {
				r.refused++ // the others must not suffer, and are in this commit
				continue
			}
			if err != nil {
				return result{}, err
			}
		}
		return r, nil
	})
	if err == nil && out.refused > 0 {
		return nil, fmt.Errorf("%w: %d of %d receipts were refused", store.ErrParkedFull, out.refused, len(receipts))
	}
	return out.reported, err
}

func (t *tx) report(rc *delivery.Receipt, now time.Time, keep time.Duration) (out store.Reported, err error) {
	account, err := t.account(rc.Account)
	if err != nil {
		return out, err
	}
	r, err := t.findReported(rc, account)
	if err != nil {
		return out, err
	}
	if r == nil {
		return out, t.park(rc, account, now, now.Add(keep))
	}
	tn, err := t.tenantN(r.tenant)
	if err != nil {
		return out, err
	}
	changed, fresh, err := t.applyReceipt(tn, r, rc, now)
	if errors.Is(err, errNoLeg) {
		return out, t.park(rc, account, now, now.Add(keep))
	}
	if err == nil && fresh {
		err = t.save(r)
	}
	out = store.Reported{Message: r.id, Tenant: tn.slug, Status: r.status, Changed: changed, Ready: t.takeReady()}
	if changed && r.status == delivery.StatusSent {
		out.Until = store.FromMillis(r.due)
	}
	return out, err
}

// findReported finds the message of a receipt: by our own id when the provider gave it back, else by the provider's. A
// receipt through one tenant's account never reaches another tenant's message.
func (t *tx) findReported(rc *delivery.Receipt, account int64) (r *row, err error) {
	if !rc.Message.IsZero() {
		r, err = t.load(rc.Message)
	}
	if err == nil && r == nil && rc.ProviderID != "" {
		var id delivery.MessageID
		var found bool
		found, err = one(t.conn, `SELECT id FROM provider_refs WHERE account = ? AND ref = ?`, func(s *sqlite.Stmt) error {
			s.ColumnBytes(0, id[:])
			return nil
		}, account, rc.ProviderID)
		if err == nil && found {
			r, err = t.load(id)
		}
	}
	if err != nil || r == nil {
		return nil, err
	}
	owner, err := t.accountOwner(rc.Account)
	if err != nil || (owner.tenant > 0 && owner.tenant != r.tenant) {
		return nil, err
	}
	return r, nil
}

// errNoLeg: none of a message's legs has the channel of a receipt's account, so that it belongs to another message.
var errNoLeg = errors.New("no leg of the message has the channel of the receipt")

// applyReceipt joins a receipt with a message that must be saved when it was fresh, which is: not an exact repeat. It
// gives errNoLeg before it has changed anything.
func (t *tx) applyReceipt(tn *tenant, r *row, rc *delivery.Receipt, now time.Time) (changed, fresh bool, err error) {
	account, err := t.account(rc.Account)
	if err != nil {
		return false, false, err
	}
	of, err := t.legOf(r, account, rc.Account)
	if err != nil {
		return false, false, err
	}
	d := receiptDigest(rc)
	for b := r.seen; len(b) >= digestSize; b = b[digestSize:] {
		if bytes.Equal(b[:digestSize], d[:digestSize]) {
			return false, false, nil
		}
	}
	if len(r.seen) >= seenDigests*digestSize {
		r.seen = slices.Clone(r.seen[digestSize:])
	}
	r.seen = append(r.seen, d[:digestSize]...)

	ch, address := r.channel, r.to
	current := of == r.leg() && r.flags&flagOvertaken == 0
	fact := delivery.Fact{Kind: delivery.FactReceipt, Status: rc.Status, Account: rc.Account, Code: rc.Code,
		Detail: rc.Detail, Leg: of}
	switch {
	case current && r.triesAgain(rc, now):
		// It is about an attempt before the one under way, which decides.
		fact.Kind, fact.Status, fact.Detail = delivery.FactLate, r.status, "an earlier attempt is "+rc.Status.String()
	case current:
		if changed, err = t.moveByReceipt(r, rc, now); err != nil {
			return false, true, err
		}
	default:
		ch, address = r.legs[of].channel, r.legs[of].to
		if changed, err = t.setLegStatus(r, of, rc.Status, store.Millis(now)); err != nil {
			return false, true, err
		}
	}
	at := rc.At
	if at.IsZero() {
		at = now
	}
	fact.At = at
	err = t.recordOn(tn, r, ch, fact)
	if err == nil && (rc.Class == delivery.BadRecipient || rc.Class == delivery.Consent) {
		err = t.suppress(tn, store.Suppression{Channel: ch, To: address, Reason: rc.Class.String(),
			Source: r.id.String(), At: now})
	}
	if err == nil && current && changed && r.status == delivery.StatusUndelivered && r.hasNext(store.Millis(now)) {
		err = t.switchLeg(tn, r, now, delivery.Fact{Code: cmp.Or(rc.Code, delivery.StatusUndelivered.String()),
			Detail: rc.Detail, Account: rc.Account}, step{delivery.StatusQueued, delivery.ByPlan})
	}
	return changed, true, err
}

// neverTried reports whether the current leg waits for its first attempt.
func (r *row) neverTried() bool {
	return claimable(r.status) && (r.epoch == 0 || len(r.legs) > 0 && r.legs[r.leg()].epoch == 0)
}

// triesAgain reports whether a receipt tells of an attempt in doubt while the next one is under way, of a leg that
// another one follows: to go on with that now, or when the leg's time ends, would be to have two legs under way.
func (r *row) triesAgain(rc *delivery.Receipt, now time.Time) bool {
	return r.status == delivery.StatusSending && r.flags&flagDoubt != 0 && r.hasNext(store.Millis(now)) &&
		(rc.Status == delivery.StatusUndelivered || rc.Status == delivery.StatusSent)
}

// moveByReceipt joins a receipt with the status of the message, which is that of the leg it is about.
func (t *tx) moveByReceipt(r *row, rc *delivery.Receipt, now time.Time) (changed bool, err error) {
	if r.neverTried() {
		return false, nil // it cannot be about this message
	}
	to, changed := delivery.AfterReceipt(r.channel, r.status, rc.Status)
	if !changed {
		return false, nil
	}
	if err := t.move(r, store.Millis(now), step{to, delivery.ByReceipt}); err != nil {
		return false, err
	}
	r.due, r.node, r.reason, r.detail = 0, "", "", ""
	r.flags &^= flagDoubt
	if to == delivery.StatusUndelivered {
		r.reason, r.detail = rc.Code, rc.Detail
	}
	if len(r.legs) > 0 {
		r.follow()
		r.win(r.leg())
		r.watch()
	}
	return true, nil
}

// park keeps a receipt for a message that is not known yet. A repeat changes nothing. It gives store.ErrParkedFull,
// having written nothing, when the account has as many parked receipts as it may have.
func (t *tx) park(rc *delivery.Receipt, account int64, now, until time.Time) error {
	n, err := t.countParked(account)
	if err != nil {
		return err
	}
	d := receiptDigest(rc)
	if n >= store.MaxParked {
		found, err := one(t.conn, `SELECT 1 FROM parked WHERE account = ? AND ref = ? AND digest = ?`,
			func(*sqlite.Stmt) error { return nil }, account, rc.ProviderID, d[:])
		if err == nil && !found {
			err = store.ErrParkedFull
		}
		return err
	}
	text, err := json.Marshal(rc)
	if err != nil {
		return err
	}
	t.anyParked = true
	err = t.exec(`INSERT INTO parked (account, ref, digest, until, receipt, since) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT DO NOTHING`,
		account, rc.ProviderID, d[:], until, string(text), now)
	if err == nil {
		t.parked[account] = n + t.conn.Changes()
	}
	return err
}

// countParked is how many receipts wait for messages of an account.
func (t *tx) countParked(account int64) (int, error) {
	if n, ok := t.parked[account]; ok {
		return n, nil
	}
	n := 0
	_, err := one(t.conn, `SELECT count(*) FROM parked WHERE account = ?`,
		func(s *sqlite.Stmt) error { n = s.ColumnInt(0); return nil }, account)
	if err == nil {
		t.parked[account] = n
	}
	return n, err
}

// applyParked applies the receipts that wait for a provider id of an account, in the order of their times.
func (t *tx) applyParked(tn *tenant, r *row, account int64, ref string, now time.Time) error {
	if !t.anyParked {
		return nil
	}
	var waiting []delivery.Receipt
	err := query(t.conn, `SELECT receipt FROM parked WHERE account = ? AND ref = ? AND until >= ?`,
		func(s *sqlite.Stmt) error {
			var rc delivery.Receipt
			err := json.Unmarshal(columnBytes(s, 0), &rc)
			waiting = append(waiting, rc)
			return err
		}, account, ref, now)
	if err != nil {
		return err
	}
	if len(waiting) == 0 {
		t.anyParked, err = one(t.conn, `SELECT 1 FROM parked LIMIT 1`, func(*sqlite.Stmt) error { return nil })
		return err
	}
	owner, err := t.accountOwner(waiting[0].Account)
	if err != nil || (owner.tenant > 0 && owner.tenant != r.tenant) {
		return err
	}
	slices.SortStableFunc(waiting, func(a, b delivery.Receipt) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Status, b.Status))
	})
	for i := range waiting {
		if _, _, err := t.applyReceipt(tn, r, &waiting[i], now); err != nil && !errors.Is(err, errNoLeg) {
			return err
		}
	}
	err = t.exec(`DELETE FROM parked WHERE account = ? AND ref = ? AND until >= ?`, account, ref, now)
	if n, ok := t.parked[account]; ok && err == nil {
		t.parked[account] = n - t.conn.Changes()
	}
	return err
}

// receiptDigest is what makes two receipts the same: everything the provider said.
func receiptDigest(rc *delivery.Receipt) [sha256.Size]byte {
	b := make([]byte, 0, 128)
	b = append(b, rc.Account[:]...)
	b = append(b, byte(rc.Status), byte(rc.Class))
	b = binary.AppendVarint(b, store.Millis(rc.At))
	for _, s := range []string{rc.ProviderID, rc.Code, rc.Detail} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return sha256.Sum256(b)
}

// Parked counts receipts that wait for their message.
func (s *Store) Parked(ctx context.Context, sys store.System) (int, error) {
	if err := checkSystem(sys); err != nil {
		return 0, err
	}
	return read(ctx, s, func(c *sqlite.Conn) (n int, err error) {
		_, err = one(c, `SELECT count(*) FROM parked`, func(s *sqlite.Stmt) error { n = s.ColumnInt(0); return nil })
		return n, err
	})
}

// DropParked removes receipts that have waited long enough.
func (s *Store) DropParked(ctx context.Context, sys store.System, now time.Time) (int, error) {
	if err := checkSystem(sys); err != nil {
		return 0, err
	}
	return write(ctx, s, 1, func(t *tx) (int, error) {
		err := t.exec(`DELETE FROM parked WHERE until < ?`, now)
		clear(t.parked)
		return t.conn.Changes(), err
	})
}
