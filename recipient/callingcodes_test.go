package recipient

import (
	"testing"

	"github.com/nyaruka/phonenumbers"
	"github.com/stretchr/testify/require"
)

// The table must say what the library's metadata says; the failure text is the entry as it should stand.
func TestCallingCodesMatchTheLibrary(t *testing.T) {
	known := phonenumbers.GetSupportedCallingCodes()
	require.Greater(t, len(known), 200)
	for code := range callingCodes {
		if !known[code] {
			require.Zero(t, callingCodes[code], "%d is no calling code", code)
			continue
		}
		want := callingCodes[code] & zeroLeads
		for n := 1; n <= maxPhoneDigits; n++ {
			cc, nat := int32(code), uint64(0)
			for range n {
				nat = nat*10 + 2
			}
			num := &phonenumbers.PhoneNumber{CountryCode: &cc, NationalNumber: &nat}
			if phonenumbers.IsPossibleNumberWithReason(num) == phonenumbers.IS_POSSIBLE {
				want |= 1 << n
			}
		}
		require.Equal(t, want, callingCodes[code], "%d: %#06x,", code, want)
	}
}

// A country's own example numbers must pass, among them those that begin with 0.
func TestExampleNumbersAreTaken(t *testing.T) {
	seen := 0
	for region := range phonenumbers.GetSupportedRegions() {
		for _, kind := range []phonenumbers.PhoneNumberType{phonenumbers.MOBILE, phonenumbers.FIXED_LINE} {
			num := phonenumbers.GetExampleNumberForType(region, kind)
			if num == nil || !phonenumbers.IsValidNumber(num) {
				continue
			}
			e164 := phonenumbers.Format(num, phonenumbers.E164)
			got, err := Phone(e164, "")
			require.NoError(t, err, "%s %s", region, e164)
			require.Equal(t, e164, got)
			seen++
		}
	}
	require.Greater(t, seen, 400)
}
