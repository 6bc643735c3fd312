package smtp

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/msgctl/msgctl/connectors"
)

// signedFields are the fields that a signature covers (RFC 6376 §5.4.1, RFC 8058 §4). A field that a message lacks is
// named all the same, so that nobody can add it on the way.
var signedFields = [...]string{
	"From", "To", "Subject", "Date", "Message-ID", "Reply-To", "List-Unsubscribe", "List-Unsubscribe-Post",
	"MIME-Version", "Content-Type", "Content-Transfer-Encoding",
}

// readDKIM reads the signing key, once per account.
func readDKIM(s connectors.Settings) (*dkim.SignOptions, error) {
	domain, selector, key := s.Text("dkim_domain"), s.Text("dkim_selector"), s.Text("dkim_key")
	if domain == "" && selector == "" && key == "" {
		return nil, nil
	}
	for _, k := range []string{"dkim_domain", "dkim_selector", "dkim_key"} {
		if s.Text(k) == "" {
			return nil, wrong(k, "is required: dkim_domain, dkim_selector and dkim_key go together")
		}
	}
	var err error
	if domain, err = asciiDomain(domain); err != nil {
		return nil, wrong("dkim_domain", "must be a domain name: %v", err)
	}
	if selector, err = asciiDomain(selector); err != nil {
		return nil, wrong("dkim_selector", "must be a DNS label: %v", err)
	}
	block, _ := pem.Decode([]byte(key))
	if block == nil {
		return nil, wrong("dkim_key", "must be a private key in PEM")
	}
	signer := parseKey(block.Bytes)
	if signer == nil {
		return nil, wrong("dkim_key", "must be an RSA key of 1024 bits or more (RFC 8301 §3.2) or an Ed25519 key")
	}
	return &dkim.SignOptions{
		Domain: domain, Selector: selector, Signer: signer, Hash: crypto.SHA256, HeaderKeys: signedFields[:],
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
	}, nil
}

// parseKey returns nil for a key that cannot sign.
func parseKey(der []byte) crypto.Signer {
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil && k.N.BitLen() >= 1024 {
		return k
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil
	}
	switch k := k.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() >= 1024 {
			return k
		}
	case ed25519.PrivateKey:
		return k
	}
	return nil
}

// sign returns the DKIM-Signature field for msg, CRLF included. msg is what leaves, before dot-stuffing.
func sign(opt *dkim.SignOptions, msg []byte) (string, error) {
	s, err := dkim.NewSigner(opt)
	if err != nil {
		return "", err
	}
	_, werr := bytes.NewReader(msg).WriteTo(s)
	if err := s.Close(); err != nil {
		return "", err
	}
	return s.Signature(), werr
}
