package engine

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// OperatorKeyFile is the name, in Config.Dir, of the file that holds the operator's first key. Only its owner may read
// it; it can be deleted once the key is kept elsewhere.
const OperatorKeyFile = "operator.key"

// ensureOperator makes the operator's first key when there is none yet. Of nodes that start at once on an empty store
// exactly one makes it: the key's id follows from the keys that there have been, and the store takes an id only once.
func (e *Engine) ensureOperator(ctx context.Context) error {
	keys, err := e.store.KeyList(ctx, system, delivery.Shared)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if k.Admin && k.RevokedAt.IsZero() && k.Name != embedded {
			e.sayWhereKeyIs()
			return nil
		}
	}
	// The file comes first: a key in the store that nobody could read would keep everybody out.
	path := filepath.Join(e.cfg.Dir, OperatorKeyFile)
	key, row := e.makeKey(firstKeyID(keys), delivery.Shared, "operator", true)
	if err := os.WriteFile(path, []byte(key.Reveal()+"\n"), 0o600); err != nil {
		return fmt.Errorf("the operator's key cannot be kept: %w", err)
	}
	err = e.store.PutKey(ctx, system, row)
	if errors.Is(err, store.ErrExists) { // by another node, unless it was this one, whose answer was lost on its way
		if _, err = e.store.KeyByHash(ctx, system, row.Hash); errors.Is(err, store.ErrNotFound) {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("the operator's key is another node's, and the file of this one is wrong: %w", err)
			}
			e.sayWhereKeyIs()
			return nil
		}
	}
	if err != nil {
		return err // the file stays: whether the key was stored is not always known
	}
	e.log.Info("made the operator's key", "file", path)
	return nil
}

// sayWhereKeyIs tells who looks for the key in the directory of a node that has not made it.
func (e *Engine) sayWhereKeyIs() {
	if e.member == nil {
		return
	}
	if _, err := os.Stat(filepath.Join(e.cfg.Dir, OperatorKeyFile)); errors.Is(err, os.ErrNotExist) {
		e.log.Info("the operator's key was made by another node: run \"engine operator-key\" there; see docs/deploy.md")
	}
}

// firstKeyID is the id of the next key that an engine makes for the operator: the same on every node that has seen the
// same keys. It sorts before all others.
func firstKeyID(keys []store.Key) (id delivery.KeyID) {
	keys = slices.DeleteFunc(slices.Clone(keys), func(k store.Key) bool { return !k.Admin || k.Name == embedded })
	slices.SortFunc(keys, func(a, b store.Key) int { return cmp.Compare(string(a.ID[:]), string(b.ID[:])) })
	h := sha256.New()
	h.Write([]byte("operator's key"))
	for _, k := range keys {
		h.Write(k.ID[:])
	}
	copy(id[6:], h.Sum(nil))
	return id
}
