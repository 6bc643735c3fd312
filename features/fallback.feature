@fallback
Feature: Fallback
  Rule: When one channel has no success, the next one begins

    Scenario: Not delivered in time
      When "acme" sends "Hello" to "+12025550133" by WhatsApp, then after 5 minutes by SMS to "+12025550100"
      And 4 minutes pass
      Then "+12025550100" shows nothing
      When 1 minute passes
      Then the message becomes delivered
      And its ways are:
        | WhatsApp | sent      | leg_timeout |     |
        | SMS      | delivered |             | won |
      And "+12025550100" shows "Hello" by SMS exactly once
      And "acme" has 1 message in all
      And every message is accounted for

    Scenario: Delivered in time
      When "acme" sends "Hello" to "+12025550100" by WhatsApp, then after 5 minutes by SMS
      Then the message becomes delivered
      When 10 minutes pass
      Then "+12025550100" shows nothing by SMS
      And its ways are:
        | WhatsApp | delivered | | won |
        | SMS      |           | |     |

    Scenario: Refused for good
      When "acme" sends "Hello" to "+12025550121" by WhatsApp, then after 5 minutes by SMS
      Then the message becomes delivered
      And "+12025550121" shows "Hello" by SMS exactly once
      And its ways are:
        | WhatsApp | failed    | 131026 |     |
        | SMS      | delivered |        | won |

    Scenario: Reported as undelivered
      When "acme" sends "Hello" to "+12025550122" by WhatsApp, then by SMS to "+12025550100"
      Then the message becomes delivered
      And "+12025550100" shows "Hello" by SMS exactly once
      And every message is accounted for

    Scenario: The person has opted out of the first channel
      Given "+12025550100" has opted out of WhatsApp
      When "acme" sends "Hello" to "+12025550100" by WhatsApp, then after 5 minutes by SMS
      Then the message becomes delivered
      And "+12025550100" shows nothing by WhatsApp
      And "+12025550100" shows "Hello" by SMS exactly once

    Scenario: Three channels, and only the last one works
      When "acme" sends "Hello" to "+12025550121" by WhatsApp, then after 1 minute by SMS to "+12025550133", then by e-mail to "delivered@sim.test"
      Then the message becomes sent
      And the explanation says "leg had no success"

    Scenario: No channel works
      When "acme" sends "Hello" to "+12025550121" by WhatsApp, then after 1 minute by SMS to "+12025550120"
      Then the message becomes failed
      And "acme" has 1 dead letter
      And every message is accounted for

    Scenario: A temporary fault is no reason to change the channel
      Given the WhatsApp connector fails 1 time with "temporary" then recovers
      When "acme" sends "Hello" to "+12025550100" by WhatsApp, then after 5 minutes by SMS
      Then the message becomes deferred
      When 10 seconds pass
      Then the message becomes delivered
      When 10 minutes pass
      Then "+12025550100" shows nothing by SMS

    Scenario: A restart while the time of the first channel runs
      When "acme" sends "Hello" to "+12025550133" by WhatsApp, then after 5 minutes by SMS to "+12025550100"
      And 2 minutes pass
      And the engine restarts
      And 2 minutes pass
      Then "+12025550100" shows nothing
      When 1 minute passes
      Then the message becomes delivered
      And "+12025550100" shows "Hello" by SMS exactly once

  Rule: A message counts once, by the first channel that succeeds

    Scenario: Delivered late, before the next channel was used
      Given the SMS connector is paused
      When "acme" sends "Hello" to "+12025550101" by WhatsApp, then after 200 seconds by SMS
      And 4 minutes pass
      Then the message becomes held because "connector_paused"
      When 1 minute passes
      Then the message becomes delivered
      When the SMS connector is resumed
      And 10 minutes pass
      Then "+12025550101" shows nothing by SMS
      And its ways are:
        | WhatsApp | delivered | leg_timeout | won |
        | SMS      | canceled  | overtaken   |     |
      And every message is accounted for

    Scenario: Delivered late, after the next channel was used
      When "acme" sends "Hello" to "+12025550101" by WhatsApp, then after 3 minutes by SMS
      And 4 minutes pass
      Then the message becomes sent
      When 1 minute passes
      Then the message becomes delivered
      And its ways are:
        | WhatsApp | delivered | leg_timeout | won |
        | SMS      | sent      |             |     |
      When 5 minutes pass
      Then its ways are:
        | WhatsApp | delivered | leg_timeout | won |
        | SMS      | delivered |             |     |
      And "acme" has 1 message in all
      And every message is accounted for

  Rule: The next channel never begins while the person may have the message

    Scenario: The first attempt is in doubt
      Given "acme" wants doubtful attempts to be held
      When "acme" sends "Hello" to "timeout@sim.test" by e-mail, then after 1 minute by SMS to "+12025550100"
      Then the message becomes held because "ambiguous"
      When 10 minutes pass
      Then the message is held because "ambiguous"
      And "+12025550100" shows nothing

    Scenario: The doubt ends the message
      Given "acme" wants doubtful attempts to be failed
      When "acme" sends "Hello" to "timeout@sim.test" by e-mail, then after 1 minute by SMS to "+12025550100"
      And 10 minutes pass
      Then the message becomes failed because "ambiguous"
      And "+12025550100" shows nothing

  Rule: What makes no sense is refused at once

    Scenario: The same channel twice
      When "acme" sends "Hello" to "+12025550100" by SMS, then after 5 minutes by SMS to "+12035550100"
      Then the request is refused with "invalid_value" naming "/fallback/0/channel"
