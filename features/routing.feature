@routing
Feature: Routing
  Background:
    Given an SMS connector "alpha" for "acme"
    And an SMS connector "beta" for "acme"

  Rule: The first rule that fits decides

    Scenario: By prefix
      Given "acme" routes SMS to "+44" by:
        | alpha | 1 |
      And "acme" routes SMS by:
        | beta | 1 |
      When "acme" sends "Hello" to "+447400123456" by SMS
      Then the message goes by "alpha"
      When "acme" sends "Hi" to "+12025550100" by SMS
      Then the message goes by "beta"

    Scenario: By weight
      Given "acme" routes SMS by:
        | alpha | 3 |
        | beta  | 1 |
      When "acme" hands in 200 messages at once
      Then all 200 messages are delivered
      And 115 to 185 of them went by "alpha"
      And nobody got it twice

  Rule: Another connector takes over, and gives back

    Scenario: Most attempts by the first fail
      Given "acme" routes SMS by:
        | alpha | 1 |
        | beta  | 0 |
      And connector "alpha" fails with "temporary"
      When "acme" hands in 60 messages at once
      And 1 minute passes
      Then all 60 messages are delivered
      And 60 to 60 of them went by "beta"
      And nobody got it twice
      When connector "alpha" comes back
      And 5 minutes pass
      And "acme" sends "Hi" to "+12035550100" by SMS
      Then the message goes by "alpha"

    Scenario: The first is paused
      Given "acme" routes SMS by:
        | alpha | 1 |
        | beta  | 0 |
      And connector "alpha" is paused
      When "acme" sends "Hello" to "+12025550100" by SMS
      Then the message goes by "beta"
      When connector "alpha" is resumed
      And "acme" sends "Hi" to "+12035550100" by SMS
      Then the message goes by "alpha"

    Scenario: No connector of the rule works
      Given "acme" routes SMS by:
        | alpha | 1 |
      And connector "alpha" is paused
      When "acme" sends "Hello" to "+12025550100" by SMS
      Then the message becomes held because "connector_paused"
      And connector "beta" has seen nothing
      And connector "sim-sms" has seen nothing

  Rule: A message in doubt stays with the connector that may have sent it

    Scenario: In doubt
      Given an e-mail connector "second" for "acme"
      And "acme" routes e-mail by:
        | sim-mail | 1 |
        | second   | 0 |
      When "acme" sends "Hello" to "timeout@sim.test" by e-mail
      Then the message becomes ambiguous
      Given connector "sim-mail" is paused
      When 10 minutes pass
      Then connector "second" has seen nothing
      When connector "sim-mail" is resumed
      And 10 minutes pass
      Then the message goes by "sim-mail"
      And connector "second" has seen nothing
      And it is marked as a possible duplicate

    Scenario: In doubt, and the tenant does not mind
      Given "acme" lets a message in doubt go by another connector
      And an e-mail connector "second" for "acme"
      And "acme" routes e-mail by:
        | sim-mail | 1 |
        | second   | 0 |
      When "acme" sends "Hello" to "timeout@sim.test" by e-mail
      Then the message becomes ambiguous
      Given connector "sim-mail" is paused
      When 10 minutes pass
      Then the message goes by "second"
      And it is marked as a possible duplicate

    Scenario: The first is down
      Given connector "gamma" is down
      And an SMS connector "gamma" for "acme"
      And "acme" routes SMS by:
        | gamma | 1 |
        | beta  | 0 |
      When "acme" sends "Hello" to "+12025550100" by SMS
      And 10 seconds pass
      Then the message goes by "beta"
      And "+12025550100" shows "Hello" exactly once
      When connector "gamma" comes back
      And 5 minutes pass
      And "acme" sends "Hi" to "+12035550100" by SMS
      Then the message goes by "gamma"
