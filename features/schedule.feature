@schedule
Feature: Schedule, limits and cancel
  Rule: A message goes at its time

    Scenario: Scheduled
      When "acme" sends "Hello" to "+12025550100" by SMS at "10:00"
      Then the message is scheduled
      And the explanation says "waits for its send_at"
      And "+12025550100" shows nothing
      When 59 minutes pass
      Then "+12025550100" shows nothing
      When 1 minute passes
      Then the message becomes delivered

    Scenario: Canceled in time
      When "acme" sends "Hello" to "+12025550100" by SMS at "10:00"
      And "acme" cancels the message
      Then the message becomes canceled
      When 2 hours pass
      Then "+12025550100" shows nothing
      And every message is accounted for

    Scenario: A restart changes nothing
      When "acme" sends "Hello" to "+12025550100" by SMS at "10:00"
      And the engine restarts
      And 2 hours pass
      Then the message becomes delivered
      And "+12025550100" shows "Hello" exactly once

  Rule: A limit is never exceeded, and what it holds back says so

    Scenario: Five per second
      Given "acme" may send 5 messages per second
      When "acme" sends 30 messages by SMS
      Then the explanation says "5 per second"
      When 10 seconds pass
      Then all 30 messages are delivered
      And at most 6 messages left in any 1 second window
      And nobody got it twice

  Rule: A paused connector keeps what comes

    Scenario: Paused and resumed
      Given the SMS connector is paused
      When "acme" sends "Hello" to "+12025550100" by SMS
      Then the message becomes held because "connector_paused"
      And the explanation says "msgctl connector resume"
      When the SMS connector is resumed
      Then the message becomes delivered
