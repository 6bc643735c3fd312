package postgres

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const (
	digestSize = 8
	// seenDigests is how many receipts a message remembers to tell a repeat; a message gets about three.
	seenDigests = 64
)

// Report stores receipts and moves the messages they belong to.
//
// Which messages those are is looked up first and without a lock, so that their rows can be locked in order. A receipt
// that is to be parked might miss a hand-off that is recorded at the same moment: see parked.go. When the transaction
// finds out that the look-up was wrong, all begins anew with what it has found out.
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
	b := &batch{s: s, receipts: receipts, now: now, keep: keep, park: map[int]bool{}}
	if err := b.intern(ctx); err != nil {
		return nil, err
	}
	for range maxRuns {
		if err := b.find(ctx); err != nil {
			return nil, err
		}
		out, err := b.run(ctx)
		switch {
		case errors.Is(err, errFindAgain):
			continue
		case err == nil && out.refused > 0:
			return nil, fmt.Errorf("%w: %d of %d receipts were refused", store.ErrParkedFull, out.refused, len(receipts))
		}
		return out.reported, err
	}
	return nil, fmt.Errorf("%w: the messages of receipts keep moving", store.ErrUnavailable)
}

// errFindAgain: a receipt belongs to another message than was looked up, or to none.
var errFindAgain = errors.New("a receipt belongs to another message")

// batch is one call of Report.
type batch struct {
	s        *Store
	receipts []delivery.Receipt
	now      time.Time
	keep     time.Duration

	accounts []int64                    // of each receipt
	byRef    map[ref]delivery.MessageID // what the look-up has found
	park     map[int]bool               // receipts that may have to be parked, so that their accounts are to be locked
}

type reportResult struct {
	reported []store.Reported
	refused  int
}

// intern gives the accounts of all receipts their numbers.
func (b *batch) intern(ctx context.Context) error {
	ids := make([]delivery.AccountID, len(b.receipts))
	for i := range b.receipts {
		ids[i] = b.receipts[i].Account
	}
	err := b.s.intern(ctx, ids...)
	b.accounts = make([]int64, len(ids))
	for i := 0; i < len(ids) && err == nil; i++ {
		b.accounts[i], err = b.s.accountNumber(ids[i])
	}
	return err
}

func (b *batch) ref(i int) ref { return ref{b.accounts[i], b.receipts[i].ProviderID} }

// find looks up the messages of provider ids, and notes the receipts for which there is none.
func (b *batch) find(ctx context.Context) error {
	var keys []ref
	for i := range b.receipts {
		if b.receipts[i].ProviderID != "" {
			keys = append(keys, b.ref(i))
		}
	}
	b.byRef = map[ref]delivery.MessageID{}
	if len(keys) > 0 {
		var stmts []stmt
		for some := range slices.Chunk(keys, rowsPerStatement) {
			stmts = append(stmts, findRefs(some, b.byRef))
		}
		if err := b.s.read(ctx, everyTenant, stmts...); err != nil {
			return err
		}
	}
	for i := range b.receipts {
		if _, found := b.byRef[b.ref(i)]; !found && b.receipts[i].Message.IsZero() {
			b.park[i] = true
		}
	}
	return nil
}

// run does the work in one transaction, or gives errFindAgain.
func (b *batch) run(ctx context.Context) (reportResult, error) {
	n := need{now: b.now, owners: make([]delivery.AccountID, len(b.receipts))}
	for i := range b.receipts {
		n.owners[i] = b.receipts[i].Account
		if id := b.receipts[i].Message; !id.IsZero() {
			n.ids = append(n.ids, id)
		}
		if id, found := b.byRef[b.ref(i)]; found {
			n.ids = append(n.ids, id)
		}
	}
	slices.SortFunc(n.ids, func(a, b delivery.MessageID) int { return bytes.Compare(a[:], b[:]) })
	n.ids = slices.Compact(n.ids)
	lot := &parking{}
	for _, i := range slices.Sorted(maps.Keys(b.park)) {
		lot.want(b.ref(i), receiptDigest(&b.receipts[i]))
	}
	n.first = lot.stmts(n.ids)
	return write(ctx, b.s, everyTenant, n, func(t *tx) (reportResult, error) {

		out := reportResult{reported: make([]store.Reported, len(b.receipts))}
		for i := range b.receipts {
			var err error
			out.reported[i], err = b.report(t, lot, i)
			switch {
			case errors.Is(err, store.ErrParkedFull):
				out.refused++ // the others must not suffer, and are in this commit
			case err != nil:
				return reportResult{}, err
			}
		}
		return out, lot.flush(t)
	})
}

func (b *batch) report(t *tx, lot *parking, i int) (out store.Reported, err error) {
	rc, account := &b.receipts[i], b.accounts[i]
	r := b.message(t, i)
	if r == nil {
		return out, b.parkOne(lot, i)
	}
	tn, err := t.tenantN(r.tenant)
	if err != nil {
		return out, err
	}
	changed, fresh, err := t.applyReceipt(tn, r, rc, account, b.now)
	if errors.Is(err, errNoLeg) {
		return out, b.parkOne(lot, i)
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

// parkOne parks a receipt. When its account is not locked for that yet, or there is a message after all, the call
// begins anew.
func (b *batch) parkOne(lot *parking, i int) error {
	if !b.park[i] {
		b.park[i] = true
		return errFindAgain
	}
	if _, was := b.byRef[b.ref(i)]; !was && lot.knows(b.ref(i)) {
		return errFindAgain
	}
	return lot.add(&b.receipts[i], b.ref(i), b.now, b.now.Add(b.keep))
}

// message finds the message of a receipt: by our own id when the provider gave it back, else by the provider's. A
// receipt through one tenant's account never reaches another tenant's message.
func (b *batch) message(t *tx, i int) (r *row) {
	rc := &b.receipts[i]
	if !rc.Message.IsZero() {
		r = t.load(rc.Message)
	}
	if r == nil && rc.ProviderID != "" {
		if id, found := b.byRef[b.ref(i)]; found {
			r = t.load(id)
		}
	}
	if r == nil {
		return nil
	}
	if o := t.accountOwner(rc.Account); o.tenant > 0 && o.tenant != r.tenant {
		return nil
	}
	return r
}

// errNoLeg: none of a message's legs has the channel of a receipt's account, so that it belongs to another message.
var errNoLeg = errors.New("no leg of the message has the channel of the receipt")

// applyReceipt joins a receipt with a message that must be saved when it was fresh, which is: not an exact repeat. It
// gives errNoLeg before it has changed anything.
func (t *tx) applyReceipt(
	tn *tenant, r *row, rc *delivery.Receipt, account int64, now time.Time,
) (changed, fresh bool, err error) {
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
	t.recordOn(tn, r, ch, fact)
	if rc.Class == delivery.BadRecipient || rc.Class == delivery.Consent {
		t.suppress(tn, store.Suppression{Channel: ch, To: address, Reason: rc.Class.String(),
			Source: r.id.String(), At: now})
	}
	if current && changed && r.status == delivery.StatusUndelivered && r.hasNext(store.Millis(now)) {
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
