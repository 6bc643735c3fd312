package api

import (
	"context"
	"encoding/json"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/vault"
)

// owner returns the key that seals a tenant's secrets.
func (a *api) owner(ctx context.Context, t delivery.TenantID) (vault.Owner, error) {
	if shared(t) {
		return vault.Owner{}, nil
	}
	row, err := a.Store.Tenant(ctx, system(), t)
	if err != nil {
		return vault.Owner{}, err
	}
	return vault.Owner{Tenant: string(row.ID), DataKey: row.DataKey}, nil
}

func secretsPlace(a store.Account) vault.Place {
	return vault.Place{Table: "connectors", Column: "secrets", ID: a.ID.String()}
}

// sealSecrets seals an account's secrets by setting; none give nil.
func sealSecrets(v *vault.Vault, o vault.Owner, a store.Account, secrets map[string]string) ([]byte, error) {
	if len(secrets) == 0 {
		return nil, nil
	}
	plain, err := json.Marshal(secrets)
	if err != nil {
		return nil, err
	}
	return v.Seal(o, secretsPlace(a), plain)
}

// OpenSecrets returns an account's secrets by setting. The owner is the account's tenant with its data key, or the zero
// Owner for a shared account. The engine calls it when it opens a connector; the values go nowhere else.
func OpenSecrets(v *vault.Vault, o vault.Owner, a store.Account) (map[string]string, error) {
	secrets := map[string]string{}
	if len(a.Sealed) == 0 {
		return secrets, nil
	}
	plain, err := v.Open(o, secretsPlace(a), a.Sealed)
	if err != nil {
		return nil, err
	}
	return secrets, json.Unmarshal(plain, &secrets)
}
