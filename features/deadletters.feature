@deadletters
Feature: Dead letters
  Rule: What ended without a hand-off waits for a decision

    Scenario: A message that was refused
      Given the SMS connector fails 1 time with "rejected" then recovers
      When "acme" sends "Hello" to "+12025550100" by SMS
      Then the message becomes failed
      And "acme" has 1 dead letter
      And "globex" has no dead letters

    Scenario: What arrived is none
      When "acme" sends "Hello" to "+12025550100" by SMS
      Then the message becomes delivered
      And "acme" has no dead letters

    Scenario: What was canceled is none
      When "acme" sends "Hello" to "+12025550100" by SMS at "10:00"
      And "acme" cancels the message
      Then "acme" has no dead letters

  Rule: A retry sends the same message, under its own id

    Scenario: Retried with success
      Given the SMS connector fails 1 time with "rejected" then recovers
      When "acme" sends "Hello" to "+12025550100" by SMS
      Then the message becomes failed
      When "acme" retries its dead letters
      Then the message becomes delivered
      And "+12025550100" shows "Hello" exactly once
      And its history is:
        | accepted | claimed | ended | redriven | claimed | sent | receipt |
      And "acme" has no dead letters
      And "acme" has 1 message in all
      And every message is accounted for

    Scenario: Retried without success
      Given the SMS connector fails 2 times with "rejected" then recovers
      When "acme" sends "Hello" to "+12025550100" by SMS
      Then the message becomes failed
      When "acme" retries its dead letters
      Then "acme" has 1 dead letter
      And the message is failed
      And every message is accounted for

    Scenario: An expired message gets new time
      When "acme" sends "Hello" to "+12025550110" by SMS valid for 2s
      And 10 seconds pass
      Then the message becomes expired
      When "acme" retries the dead letter "Hello"
      And 1 hour passes
      Then the message becomes delivered
      And "+12025550110" shows "Hello" exactly once

    Scenario: Only those with one reason
      Given the SMS connector fails 1 time with "rejected" then recovers
      When "acme" sends "Hello" to "+12025550100" by SMS
      Then the message becomes failed
      When "acme" sends "Hi" to "+12025550120" by SMS
      Then the message becomes failed
      And "acme" has 2 dead letters
      When "acme" retries those because "ESME_RX_R_APPN"
      Then 1 of them is moved
      And the message "Hello" becomes delivered
      And the message "Hi" is failed

    Scenario: One that may have arrived is marked
      When "acme" sends "Hello" to "timeout@sim.test" by e-mail at most once
      Then the message becomes unknown
      And "acme" has 1 dead letter
      When "acme" retries its dead letters
      Then the message becomes sent
      And it is marked as a possible duplicate

    Scenario: What is no dead letter stays where it is
      When "acme" sends "Hello" to "+12025550100" by SMS
      Then the message becomes delivered
      When "acme" retries the dead letter "Hello"
      Then 0 of them are moved, 1 is not
      And "+12025550100" shows "Hello" exactly once

  Rule: A drop puts it away and forgets nothing

    Scenario: Dropped
      Given the SMS connector fails 1 time with "rejected" then recovers
      When "acme" sends "Hello" to "+12025550100" by SMS
      Then the message becomes failed
      When "acme" drops its dead letters
      Then "acme" has no dead letters
      And the message is failed
      And its history is:
        | accepted | claimed | ended | dropped |
      And every message is accounted for
