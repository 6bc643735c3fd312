@retry
Feature: Temporary faults
  Rule: A message is tried again on schedule until it goes or its time is over

    Scenario: Two temporary failures
      When "acme" sends "Hello" to "+12025550110" by SMS
      Then the message becomes deferred
      And the explanation says "the next one is at"
      When 10 minutes pass
      Then the message becomes delivered
      And "+12025550110" shows "Hello" exactly once
      And its attempts ended after:
        | 0s | 5s | 35s |

    Scenario: A message that fails until it expires
      When "acme" sends "Hello" to "+12025550111" by SMS valid for 10m
      Then the message becomes deferred
      When 11 minutes pass
      Then the message becomes expired
      And "+12025550111" shows nothing
      And every message is accounted for

    Scenario: A provider that asks to slow down
      When "acme" sends "Hello" to "+12025550112" by WhatsApp
      Then the message becomes deferred
      When 2 minutes pass
      Then the message becomes delivered
      And "+12025550112" shows "Hello" exactly once

  Rule: An attempt without an answer is never hidden

    Scenario: The acknowledgement is lost and the receipt tells
      When "acme" sends "Hello" to "+12025550130" by WhatsApp
      Then the message becomes delivered
      And "+12025550130" shows "Hello" exactly once

    Scenario: The acknowledgement is lost and nothing can tell
      When "acme" sends "Hello" to "timeout@sim.test" by e-mail
      Then the message becomes ambiguous
      When 1 minute passes
      Then the message becomes sent
      And it is marked as a possible duplicate
      And "timeout@sim.test" shows "Hello" exactly twice

    Scenario: At most once
      When "acme" sends "Hello" to "timeout@sim.test" by e-mail at most once
      Then the message becomes unknown
      And "timeout@sim.test" shows "Hello" exactly once

    Scenario: A tenant that would rather fail
      Given "acme" wants doubtful attempts to be failed
      When "acme" sends "Hello" to "timeout@sim.test" by e-mail
      And 1 minute passes
      Then the message becomes failed because "ambiguous"
      And "timeout@sim.test" shows "Hello" exactly once
