package vault

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

var place = Place{Table: "accounts", Column: "sealed", ID: "con_1"}

func key(b byte) (k [KeySize]byte) {
	for i := range k {
		k[i] = b
	}
	return k
}

func TestSealOpen(t *testing.T) {
	v := New(key(1))
	acme := Owner{"acme", v.NewDataKey("acme")}
	for _, secret := range [][]byte{nil, []byte("s"), bytes.Repeat([]byte("long"), 10_000)} {
		for _, o := range []Owner{acme, {}} {
			a, err := v.Seal(o, place, secret)
			require.NoError(t, err)
			b, err := v.Seal(o, place, secret)
			require.NoError(t, err)
			require.NotEqual(t, a, b, "the same nonce twice")
			if len(secret) > 8 {
				require.NotContains(t, string(a), string(secret))
			}
			got, err := New(key(1)).Open(o, place, a)
			require.NoError(t, err)
			require.Equal(t, string(secret), string(got))
		}
	}
}

func TestMovedSecretDoesNotOpen(t *testing.T) {
	v := New(key(1))
	acme, globex := Owner{"acme", v.NewDataKey("acme")}, Owner{"globex", v.NewDataKey("globex")}
	sealed, err := v.Seal(acme, place, []byte("secret"))
	require.NoError(t, err)
	for name, try := range map[string]struct {
		v *Vault
		o Owner
		p Place
	}{
		"other row":              {v, acme, Place{"accounts", "sealed", "con_2"}},
		"other column":           {v, acme, Place{"accounts", "other", "con_1"}},
		"other table":            {v, acme, Place{"tenants", "sealed", "con_1"}},
		"shifted parts":          {v, acme, Place{"account", "ssealed", "con_1"}},
		"other tenant":           {v, globex, place},
		"other tenant's key":     {v, Owner{"acme", globex.DataKey}, place},
		"own key, other tenant":  {v, Owner{"globex", acme.DataKey}, place},
		"second key of a tenant": {v, Owner{"acme", v.NewDataKey("acme")}, place},
		"operator":               {v, Owner{}, place},
		"no data key":            {v, Owner{Tenant: "acme"}, place},
		"cut data key":           {v, Owner{"acme", acme.DataKey[:20]}, place},
		"other master key":       {New(key(2)), acme, place},
	} {
		_, err := try.v.Open(try.o, try.p, sealed)
		require.ErrorIs(t, err, ErrSealed, name)
	}
	got, err := v.Open(acme, place, sealed)
	require.NoError(t, err)
	require.Equal(t, "secret", string(got))
}

func TestAlteredSecretDoesNotOpen(t *testing.T) {
	v := New(key(1))
	o := Owner{"acme", v.NewDataKey("acme")}
	sealed, err := v.Seal(o, place, []byte("secret"))
	require.NoError(t, err)
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		_, err := v.Open(o, place, bad)
		require.ErrorIs(t, err, ErrSealed)
		_, err = v.Open(o, place, sealed[:i])
		require.ErrorIs(t, err, ErrSealed)
	}
	for i := range o.DataKey {
		bad := bytes.Clone(o.DataKey)
		bad[i] ^= 1
		_, err := v.Open(Owner{"acme", bad}, place, sealed)
		require.ErrorIs(t, err, ErrSealed)
	}
}

func TestDerive(t *testing.T) {
	v := New(key(1))
	require.Equal(t, v.Derive("a"), New(key(1)).Derive("a"))
	require.NotEqual(t, v.Derive("a"), v.Derive("b"))
	require.NotEqual(t, v.Derive("a"), New(key(2)).Derive("a"))
	require.Len(t, v.Pepper(), KeySize)
	require.NotEqual(t, New(key(1)).ID(), New(key(2)).ID())
}

func TestVaultHidesItsKeys(t *testing.T) {
	v := New(key(7))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		require.Equal(t, "vault "+v.ID(), fmt.Sprintf(verb, v))
	}
}

func TestLoadOrCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	a, err := LoadOrCreate(path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	b, err := LoadOrCreate(path)
	require.NoError(t, err)
	require.Equal(t, a.ID(), b.ID())
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1, "a temporary file was left")

	other, err := LoadOrCreate(filepath.Join(t.TempDir(), "master.key"))
	require.NoError(t, err)
	require.NotEqual(t, a.ID(), other.ID())
}

func TestCreatedTwiceAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	ids := make([]string, 16)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			if v, err := LoadOrCreate(path); err == nil {
				ids[i] = v.ID()
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		require.NotEmpty(t, id)
		require.Equal(t, ids[0], id)
	}
}

func TestLoadRefuses(t *testing.T) {
	good := header + "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"world-readable": {good, 0o644, "chmod 600 "},
		"group-readable": {good, 0o640, "chmod 600 "},
		"empty":          {"", 0o600, "is not a master key file"},
		"something else": {"-----BEGIN PRIVATE KEY-----\n", 0o600, "is not a master key file"},
		"cut":            {good[:40], 0o600, "is damaged"},
		"not base64":     {header + "!!!!", 0o600, "is damaged"},
		"too long":       {header + "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 0o600, "is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "master.key")
			require.NoError(t, os.WriteFile(path, []byte(c.text), c.mode))
			require.NoError(t, os.Chmod(path, c.mode))
			for _, load := range []func(string) (*Vault, error){Load, LoadOrCreate} {
				_, err := load(path)
				var fe *FileError
				require.ErrorAs(t, err, &fe)
				require.ErrorContains(t, err, c.want)
				require.ErrorContains(t, err, path)
			}
		})
	}
	_, err := Load(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = LoadOrCreate(filepath.Join(t.TempDir(), "no", "folder", "master.key"))
	require.ErrorContains(t, err, "cannot be made")
	_, err = LoadOrCreate(t.TempDir())
	require.ErrorContains(t, err, "is not a regular file")
}

func FuzzOpen(f *testing.F) {
	v := New(key(1))
	o := Owner{"acme", v.NewDataKey("acme")}
	sealed, _ := v.Seal(o, place, []byte("secret"))
	f.Add(sealed, o.DataKey)
	f.Add([]byte{1}, []byte{1})
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, s, k []byte) {
		got, err := v.Open(Owner{"acme", k}, place, s)
		if err == nil {
			require.Equal(t, "secret", string(got)) // only what the vault has sealed opens
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	v := New(key(1))
	o := Owner{"acme", v.NewDataKey("acme")}
	sealed, _ := v.Seal(o, place, []byte(`{"password":"secret"}`))
	for b.Loop() {
		_, _ = v.Open(o, place, sealed)
	}
}
