@clock
Feature: Clocks
  Rule: A local time means what the clocks at that place show

    Scenario: Summer time skips the hour
      Given it is "2027-03-27 12:00" in "UTC"
      When "acme" sends "Hello" to "+12025550100" by SMS at "2027-03-28 02:30" in "Europe/Berlin"
      Then the message is due at "2027-03-28 01:00" UTC
      Given it is "2027-03-28 01:59" in "Europe/Berlin"
      Then "+12025550100" shows nothing
      When 1 minute passes
      Then "+12025550100" shows "Hello" exactly once

    Scenario: Winter time has the hour twice
      Given it is "2027-10-30 12:00" in "UTC"
      When "acme" sends "Hello" to "+12025550100" by SMS at "2027-10-31 02:30" in "Europe/Berlin"
      Then the message is due at "2027-10-31 00:30" UTC
      When 13 hours pass
      Then "+12025550100" shows "Hello" exactly once
      When 2 hours pass
      Then "+12025550100" shows "Hello" exactly once

    Scenario: An expiry is a span, whatever clocks show meanwhile
      Given it is "2027-03-27 12:00" in "UTC"
      When "acme" sends "Hello" to "+12025550100" by SMS at "2027-03-27 18:00" in "Europe/Berlin" valid for 24h
      Then the message is due at "2027-03-27 17:00" UTC and expires at "2027-03-28 17:00" UTC

  Rule: A clock that is turned neither loses nor doubles anything

    Scenario: Turned ahead over a send time
      When "acme" sends "Hello" to "+12025550100" by SMS at "10:00"
      And the clock jumps ahead by 3 hours
      Then the message becomes delivered
      And "+12025550100" shows "Hello" exactly once

    Scenario: Turned ahead over an expiry
      When "acme" sends "Hello" to "+12025550111" by SMS valid for 10m
      Then the message becomes deferred
      When the clock jumps ahead by 1 hour
      Then the message becomes expired
      And "+12025550111" shows nothing

    Scenario: Set back while a message waits
      When "acme" sends "Hello" to "+12025550110" by SMS
      Then the message becomes deferred
      When the clock is set back by 1 hour
      And "acme" sends "Hi" to "+12025550100" by SMS
      Then the message becomes delivered
      When 2 hours pass
      Then the message "Hello" becomes delivered
      And "+12025550110" shows "Hello" exactly once
      And every message is accounted for
