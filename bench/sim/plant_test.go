package sim

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPlantedMistakesAreFound breaks a promise on purpose, once per kind: a simulation that finds nothing proves nothing.
func TestPlantedMistakesAreFound(t *testing.T) {
	o := options(t)
	for what, p := range map[string]plant{
		"hints are all there is: nobody looks into the store":   plantNoSweep,
		"an outcome is said to be written, and is not":          plantLostOutcome,
		"doubts are never looked at again":                      plantForgetDoubt,
		"a cancel says yes and does nothing":                    plantLyingCancel,
		"the attempt journal is lost in a kill":                 plantNoJournal,
		"limits let everything through":                         plantNoLimits,
		"a second attempt does not say that it may be a repeat": plantUnmarked,
	} {
		t.Run(what, func(t *testing.T) {
			o.plant = p
			const most = 150
			seed, found := uint64(1), ""
			for ; seed <= most && found == ""; seed++ {
				if r := run(t, seed, o); len(r.Violations) > 0 {
					found = r.Violations[0]
				}
			}
			require.NotEmpty(t, found, "not found by %d seeds", most)
			t.Logf("found by seed %d: %s", seed-1, found)
		})
	}
}
