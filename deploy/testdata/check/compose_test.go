package check

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
)

const composeDir = "../../compose"

// project loads a file as "docker compose config" does: against the schema of the specification, with every reference
// checked.
func project(t *testing.T, file string, environment map[string]string) (*types.Project, error) {
	t.Helper()
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  composeDir,
		ConfigFiles: []types.ConfigFile{{Filename: composeDir + "/" + file}},
		Environment: environment,
	})
}

func loaded(t *testing.T, file string) *types.Project {
	t.Helper()
	p, err := project(t, file, nil)
	require.NoError(t, err)
	require.NoError(t, p.CheckContainerNameUnicity())
	return p
}

// TestComposeIsStrict shows that the loader finds what is wrong, so that its silence says something.
func TestComposeIsStrict(t *testing.T) {
	b, err := os.ReadFile(composeDir + "/cluster.yaml")
	require.NoError(t, err)
	for _, c := range []struct{ from, to string }{
		{"stop_grace_period: 45s", "stop_grace_time: 45s"}, {"condition: service_healthy}", "condition: healthy}"},
		{"depends_on:\n      postgres:", "depends_on:\n      postgresql:"}, {"secrets: [owner.pgpass]", "secrets: [owner.pass]"},
		{"- postgres:/var/lib", "- postgress:/var/lib"},
	} {
		require.Contains(t, string(b), c.from)
		broken := strings.Replace(string(b), c.from, c.to, 1)
		_, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
			WorkingDir:  composeDir,
			ConfigFiles: []types.ConfigFile{{Filename: "cluster.yaml", Content: []byte(broken)}},
		})
		require.Error(t, err, c.to)
	}
}

func TestComposeServicesAreBounded(t *testing.T) {
	for _, file := range []string{"embedded.yaml", "cluster.yaml"} {
		p := loaded(t, file)
		for name, s := range p.Services {
			require.Equal(t, []string{"ALL"}, []string(s.CapDrop), "%s %s", file, name)
			require.Contains(t, s.SecurityOpt, "no-new-privileges:true", "%s %s", file, name)
			require.False(t, s.Privileged)
			require.NotEmpty(t, s.Logging.Options["max-size"], "%s %s: an endless log fills the disk", file, name)
			require.NotContains(t, s.Image, ":latest", "%s %s", file, name)
			for _, port := range s.Ports {
				require.Equal(t, "127.0.0.1", port.HostIP, "%s %s is open to the world", file, name)
			}
			for key, value := range s.Environment {
				if value != nil {
					require.NotRegexp(t, `://[^/]*:[^/]*@`, *value, "%s %s: %s holds a password", file, name, key)
					require.False(t, strings.HasSuffix(key, "PASSWORD"), "%s %s: %s", file, name, key)
				}
			}
			if strings.Contains(s.Image, "msgctl/engine") {
				require.True(t, s.ReadOnly, "%s %s", file, name)
				require.Empty(t, s.CapAdd, "%s %s", file, name)
			}
		}
	}
}

func TestComposeEngines(t *testing.T) {
	for file, engines := range map[string][]string{
		"embedded.yaml": {"engine"}, "cluster.yaml": {"engine-1", "engine-2", "engine-3"},
	} {
		p := loaded(t, file)
		volumes := map[string]bool{}
		for _, name := range engines {
			s, ok := p.Services[name]
			require.True(t, ok)
			require.Greater(t, time.Duration(*s.StopGracePeriod), 35*time.Second, "a drain takes 30 s and the server's end 5")
			require.Equal(t, "/var/lib/msgctl", s.Volumes[0].Target)
			require.False(t, volumes[s.Volumes[0].Source], "two engines on one directory")
			volumes[s.Volumes[0].Source] = true
			if file == "cluster.yaml" {
				require.Equal(t, name, *s.Environment["MSGCTL_NODE"])
				require.Equal(t, "service_completed_successfully", s.DependsOn["migrate"].Condition)
			}
		}
	}
}

func TestComposeClusterStartsInOrder(t *testing.T) {
	p := loaded(t, "cluster.yaml")
	// Whoever is waited for as healthy has a check, in the file or in its image.
	for name, s := range p.Services {
		for on, d := range s.DependsOn {
			other := p.Services[on]
			if d.Condition == types.ServiceConditionHealthy {
				require.True(t, other.HealthCheck != nil || strings.Contains(other.Image, "msgctl/engine"), "%s waits for %s", name, on)
			}
			if d.Condition == types.ServiceConditionCompletedSuccessfully {
				require.Equal(t, "no", other.Restart, "%s waits for the end of %s", name, on)
			}
		}
	}
	migrate := p.Services["migrate"]
	require.Equal(t, []string{"/msgctl"}, []string(migrate.Entrypoint))
	require.Equal(t, "migrate up --app-role msgctl", strings.Join(migrate.Command, " "))
	// Nobody has a secret that he does not need.
	users := map[string][]string{}
	for name, s := range p.Services {
		for _, secret := range s.Secrets {
			users[secret.Source] = append(users[secret.Source], name)
		}
	}
	for _, list := range users {
		slices.Sort(list)
	}
	engines := []string{"engine-1", "engine-2", "engine-3"}
	require.Equal(t, map[string][]string{
		"postgres_password": {"postgres"}, "owner_password": {"postgres"}, "app_password": {"postgres"},
		"owner.pgpass": {"migrate"}, "rabbitmq.conf": {"rabbitmq"}, "redis.conf": {"redis"},
		"engine.yaml": engines, "master.key": engines,
	}, users)
	for name := range p.Secrets {
		require.Contains(t, users, name, "nobody uses the secret")
	}
}

// TestComposeProxyKnowsTheEngines reads the names out of the proxy's configuration.
func TestComposeProxyKnowsTheEngines(t *testing.T) {
	b, err := os.ReadFile(composeDir + "/haproxy/haproxy.cfg")
	require.NoError(t, err)
	p := loaded(t, "cluster.yaml")
	servers := 0
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "server" {
			require.Equal(t, f[1]+":8020", f[2])
			require.Contains(t, p.Services, f[1])
			servers++
		}
	}
	require.Equal(t, 3, servers)
}

func TestComposeTakesTheImageFromOutside(t *testing.T) {
	p, err := project(t, "cluster.yaml", map[string]string{"MSGCTL_IMAGE": "mine/engine@sha256:" + strings.Repeat("a", 64), "MSGCTL_PORT": "9"})
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(p.Services["engine-2"].Image, "mine/engine@"))
	require.True(t, strings.HasPrefix(p.Services["migrate"].Image, "mine/engine@"))
	require.Equal(t, "9", p.Services["proxy"].Ports[0].Published)
}
