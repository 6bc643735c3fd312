package features_test

import (
	"flag"
	"os"
	"testing"

	"github.com/cucumber/godog"
	"github.com/cucumber/godog/colors"

	"github.com/msgctl/msgctl/features/steps"
)

var tags = flag.String("tags", "~@wip", "run the scenarios with these godog tags")

// TestFeatures runs every promise in this folder.
func TestFeatures(t *testing.T) {
	suite := godog.TestSuite{
		ScenarioInitializer: steps.Register,
		Options: &godog.Options{
			Format: "progress", Paths: []string{"."}, Tags: *tags, Strict: true, Output: colors.Uncolored(os.Stdout),
			Concurrency: 2, TestingT: t,
		},
	}
	if suite.Run() != 0 {
		t.Fatal("a promise does not hold")
	}
}
