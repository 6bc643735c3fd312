@retry
Feature: A tenant's own schedule
  Rule: Failed attempts are made again when the tenant's rule says

    Scenario: Its own delays, of which the last repeats
      Given "acme" retries SMS after "10s, 1m"
      And the SMS connector fails 4 times with "temporary" then recovers
      When "acme" sends "Hello" to "+12025550100" by SMS
      And 10 minutes pass
      Then the message becomes delivered
      And its attempts ended after:
        | 0s | 10s | 1m10s | 2m10s | 3m10s |

    Scenario: Given up after a time
      Given "acme" retries SMS after "10s, 1m" and gives up after "2m"
      When "acme" sends "Hello" to "+12025550111" by SMS
      And 10 minutes pass
      Then the message becomes failed because "retries_exhausted"
      And its attempts ended after:
        | 0s | 10s | 1m10s |
      And "acme" has 1 dead letter because "retries_exhausted"
      And every message is accounted for

    Scenario: A rule for another channel does not count
      Given "acme" retries WhatsApp after "1h"
      When "acme" sends "Hello" to "+12025550110" by SMS
      And 1 minute passes
      Then the message becomes delivered
      And its attempts ended after:
        | 0s | 5s | 35s |

    Scenario: Another tenant keeps the engine's schedule
      Given "acme" retries e-mail after "1h"
      When "globex" sends "Hello" to "delayed@sim.test" by e-mail
      And 1 minute passes
      Then the message becomes sent
      And its attempts ended after:
        | 0s | 5s | 35s |
