@consent
Feature: Consent
  Rule: Nobody is written to who has said no

    Scenario: Opted out before
      Given "+12025550100" has opted out of SMS
      When "acme" sends "Hello" to "+12025550100" by SMS
      Then the message becomes suppressed
      And the explanation says "msgctl suppress rm"
      And "+12025550100" shows nothing

    Scenario: Opted out while a message waits
      When "acme" sends "Hello" to "+12025550100" by SMS at "10:00"
      Then the message is scheduled
      Given "+12025550100" has opted out of SMS
      When 2 hours pass
      Then the message becomes suppressed
      And "+12025550100" shows nothing

    Scenario Outline: The person replies <word>
      When "acme" sends "Hello" to "+12025550100" by SMS
      Then the message becomes delivered
      When "+12025550100" replies "<word>" to the last SMS
      And "acme" sends "Hello again" to "+12025550100" by SMS
      Then the message becomes suppressed

      Examples:
        | word     |
        | STOP     |
        | Stop.    |
        | STOP ALL |
        | ＳＴＯＰ |
        | arrêt    |
