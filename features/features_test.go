package features_test

import (
	"flag"
	"os"
	"testing"

	"github.com/cucumber/godog"
	"github.com/cucumber/godog/colors"

	"github.com/msgctl/msgctl/features/steps"
)

var only = flag.String("only", "", "run only the scenarios with these tags, such as @smoke,@retry or ~@campaign")

// atOnce is how many scenarios run at the same time.
const atOnce = 4

// TestFeatures runs every promise in this folder on one engine with a store of its own.
func TestFeatures(t *testing.T) { run(t, "~@cluster", steps.Register) }

// TestFeaturesOnACluster runs every promise on PostgreSQL, RabbitMQ and Redis, and those of several nodes. With -short
// it is these and a message of each channel.
func TestFeaturesOnACluster(t *testing.T) {
	if testing.Short() && *only == "" {
		*only = "@smoke,@cluster"
	}
	l := survey(t)
	run(t, "~@embedded", steps.Shape{Lay: l.lay, Raise: l.raise}.Register)
}

func run(t *testing.T, shape string, register func(*godog.ScenarioContext)) {
	which := shape + " && ~@wip"
	if *only != "" {
		which += " && " + *only
	}
	suite := godog.TestSuite{
		ScenarioInitializer: register,
		Options: &godog.Options{
			Format: "progress", Paths: []string{"."}, Tags: which, Strict: true, Output: colors.Uncolored(os.Stdout),
			Concurrency: atOnce, TestingT: t,
		},
	}
	if suite.Run() != 0 {
		t.Fatal("a promise does not hold")
	}
}
