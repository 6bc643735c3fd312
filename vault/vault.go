// Package vault seals secrets so that the store alone gives none of them away.
//
// It is envelope encryption in two steps. A master key, kept in a file apart from the store, wraps one random data key
// per tenant; the data key seals that tenant's secrets. All encryption is AES-256-GCM (NIST SP 800-38D) with a random
// 96-bit nonce, and every ciphertext is bound to the place it belongs to: moved to another row, column, table or tenant
// it does not open. Forgetting a tenant's wrapped key makes all of that tenant's secrets unreadable for ever.
package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// KeySize is the size of the master key and of every data key in bytes.
const KeySize = 32

// ErrSealed is what Open returns for bytes that do not open: altered, of another place, or sealed under another master
// key. It does not say which, and an attacker learns nothing from it.
var ErrSealed = errors.New("vault: the secret does not open: it was altered, moved or sealed with another master key")

// Formats of what the vault writes. The first byte says which, so that a later one can be told apart.
const (
	formatDataKey = 1
	formatSecret  = 1
)

// Vault holds the master key. It is immutable and safe for concurrent use.
type Vault struct {
	id   [4]byte // names the master key: a wrapped key says which one it needs
	wrap cipher.AEAD
	root [KeySize]byte // for Derive
}

// New makes a vault of a master key. Tests use it with a fixed one; programs use LoadOrCreate or Load.
func New(master [KeySize]byte) *Vault {
	v := &Vault{}
	v.root = derive(master[:], "msgctl root v1")
	kek := derive(master[:], "msgctl key encryption v1")
	v.wrap = gcm(kek[:])
	name := derive(master[:], "msgctl master key id v1")
	copy(v.id[:], name[:])
	return v
}

// ID names the master key without giving it away: eight hexadecimal digits. Two vaults with the same ID open the same
// secrets.
func (v *Vault) ID() string { return fmt.Sprintf("%x", v.id) }

// Derive returns a secret for another purpose, the same for the same label at every start (HKDF-SHA-256, RFC 5869).
// Different labels give secrets that say nothing about each other.
func (v *Vault) Derive(label string) [KeySize]byte { return derive(v.root[:], "derived: "+label) }

// Pepper returns the secret under which API keys are hashed.
func (v *Vault) Pepper() []byte {
	p := v.Derive("api key pepper v1")
	return p[:]
}

// String keeps the keys out of logs and error texts.
func (v *Vault) String() string { return "vault " + v.ID() }

// GoString keeps the keys out of %#v.
func (v *Vault) GoString() string { return v.String() }

// Owner is whose secrets are sealed: a tenant and its wrapped data key. The operator, with an empty Tenant, has no
// wrapped key: its data key follows from the master key.
type Owner struct {
	Tenant  string
	DataKey []byte // as NewDataKey returned it
}

// Place is where a sealed secret is kept.
type Place struct{ Table, Column, ID string }

// NewDataKey makes a random data key for a tenant and returns it wrapped; only the vault can unwrap it.
func (v *Vault) NewDataKey(tenant string) []byte {
	var key [KeySize]byte
	_, _ = rand.Read(key[:]) // it never fails: it stops the program instead
	out := append([]byte{formatDataKey}, v.id[:]...)
	return seal(v.wrap, out, key[:], aad(tenant, Place{Table: "tenants", Column: "data_key", ID: tenant}))
}

// Seal encrypts a secret of the owner for a place. Sealing the same secret twice gives different bytes.
func (v *Vault) Seal(o Owner, p Place, secret []byte) ([]byte, error) {
	data, err := v.unwrap(o)
	if err != nil {
		return nil, err
	}
	return seal(data, []byte{formatSecret}, secret, aad(o.Tenant, p)), nil
}

// Open decrypts what Seal made for the same owner and place. Every failure is ErrSealed, possibly wrapped.
func (v *Vault) Open(o Owner, p Place, sealed []byte) ([]byte, error) {
	data, err := v.unwrap(o)
	if err != nil {
		return nil, err
	}
	if len(sealed) == 0 || sealed[0] != formatSecret {
		return nil, ErrSealed
	}
	return open(data, sealed[:1], sealed[1:], aad(o.Tenant, p))
}

func (v *Vault) unwrap(o Owner) (cipher.AEAD, error) {
	if o.Tenant == "" {
		key := v.Derive("operator data key v1")
		return gcm(key[:]), nil
	}
	head := 1 + len(v.id)
	if len(o.DataKey) <= head || o.DataKey[0] != formatDataKey {
		return nil, fmt.Errorf("the tenant has no data key: %w", ErrSealed)
	}
	if [4]byte(o.DataKey[1:head]) != v.id {
		return nil, fmt.Errorf("the tenant's data key needs master key %x, this is %x: %w", o.DataKey[1:head], v.id,
			ErrSealed)
	}
	key, err := open(v.wrap, o.DataKey[:head], o.DataKey[head:],
		aad(o.Tenant, Place{Table: "tenants", Column: "data_key", ID: o.Tenant}))
	if err != nil {
		return nil, err
	}
	return gcm(key), nil
}

// seal appends nonce and ciphertext to head, which is authenticated too.
func seal(a cipher.AEAD, head, plain, place []byte) []byte {
	var nonce [12]byte
	_, _ = rand.Read(nonce[:])
	out := append(head, nonce[:]...)
	return a.Seal(out, nonce[:], plain, append(place, head...))
}

func open(a cipher.AEAD, head, sealed, place []byte) ([]byte, error) {
	if len(sealed) < a.NonceSize() {
		return nil, ErrSealed
	}
	plain, err := a.Open(nil, sealed[:a.NonceSize()], sealed[a.NonceSize():], append(place, head...))
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

// aad joins the parts of a place so that no two places give the same bytes: each part follows its length.
func aad(tenant string, p Place) []byte {
	var b []byte
	for _, part := range []string{tenant, p.Table, p.Column, p.ID} {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	return b
}

func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only for a key of another size: a mistake in this package
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return a
}

func derive(secret []byte, label string) (out [KeySize]byte) {
	key, err := hkdf.Key(sha256.New, secret, nil, label, KeySize)
	if err != nil {
		panic(err) // only for an impossible length
	}
	copy(out[:], key)
	return out
}
