@ordering
Feature: Order
  Rule: Messages with one ordering key arrive in the order in which they were sent

    Scenario: Many at once
      When "acme" sends 30 messages to "+12025550100" by SMS in order "invoice-7"
      Then "+12025550100" shows all 30 in order
      And every message is accounted for

    Scenario: The first has to be tried again
      Given the SMS connector fails 1 time with "temporary" then recovers
      When "acme" sends "One" to "+12025550100" by SMS in order "invoice-7"
      Then the message becomes deferred
      When "acme" sends "Two" to "+12025550100" by SMS in order "invoice-7"
      Then the message becomes held because "ordered"
      And the explanation says "before it"
      When 5 seconds pass
      Then "+12025550100" shows in this order:
        | One |
        | Two |

    Scenario: A restart keeps the order
      Given the SMS connector is paused
      When "acme" sends 5 messages to "+12025550100" by SMS in order "invoice-7"
      And the engine restarts
      Then the message "Message 1" becomes held because "connector_paused"
      When the SMS connector is resumed
      Then "+12025550100" shows all 5 in order

  Rule: A message that waits holds up its own key and nothing else

    Scenario: Another key, another person, no key
      Given the SMS connector fails 1 time with "temporary" then recovers
      When "acme" sends "One" to "+12025550100" by SMS in order "invoice-7"
      Then the message becomes deferred
      When "acme" sends "Two" to "+12025550100" by SMS in order "invoice-7"
      And "acme" sends "Other key" to "+12025550100" by SMS in order "invoice-8"
      And "acme" sends "Other person" to "+12035550100" by SMS in order "invoice-7"
      And "acme" sends "No key" to "+12045550100" by SMS
      Then the message "Other key" becomes delivered
      And the message "Other person" becomes delivered
      And the message "No key" becomes delivered
      And the message "Two" is held because "ordered"
      When 5 seconds pass
      Then "+12025550100" shows in this order:
        | Other key |
        | One       |
        | Two       |

  Rule: The next one goes when the one before it cannot come any more

    Scenario: The first is refused
      Given the SMS connector fails 1 time with "rejected" then recovers
      When "acme" sends "One" to "+12025550100" by SMS in order "invoice-7"
      And "acme" sends "Two" to "+12025550100" by SMS in order "invoice-7"
      Then the message "Two" becomes delivered
      And the message "One" becomes failed

    Scenario: The first is canceled
      When "acme" sends "One" to "+12025550100" by SMS at "10:00" in order "invoice-7"
      And "acme" sends "Two" to "+12025550100" by SMS in order "invoice-7"
      Then the message "Two" is held because "ordered"
      When "acme" cancels the message "One"
      And the clock jumps ahead by 1 second
      Then the message "Two" becomes delivered
      And "+12025550100" shows in this order:
        | Two |

    Scenario: The first expires
      When "acme" sends "One" to "+12025550111" by SMS valid for 10m in order "invoice-7"
      And "acme" sends "Two" to "+12025550111" by SMS valid for 30m in order "invoice-7"
      And 11 minutes pass
      Then the message "One" becomes expired
      And the message "Two" becomes deferred

    Scenario: The first is canceled, the next goes at once
      When "acme" sends "One" to "+12025550100" by SMS at "10:00" in order "invoice-7"
      And "acme" sends "Two" to "+12025550100" by SMS in order "invoice-7"
      Then the message "Two" is held because "ordered"
      When "acme" cancels the message "One"
      Then the message "Two" becomes delivered

    Scenario: Resumed right after a restart
      Given the SMS connector is paused
      When "acme" sends 5 messages to "+12025550100" by SMS in order "invoice-7"
      And the engine restarts
      And the SMS connector is resumed
      Then "+12025550100" shows all 5 in order
