@accept
Feature: Accept
  Rule: The same request is accepted once

    Scenario: The same key and the same request
      When "acme" sends "Hello" to "+12025550100" by SMS using idempotency key "k1"
      And "acme" sends "Hello" to "+12025550100" by SMS using idempotency key "k1"
      Then the request is accepted as the same message
      And the message becomes delivered
      And "+12025550100" shows "Hello" exactly once

    Scenario: The same key and another request
      When "acme" sends "Hello" to "+12025550100" by SMS using idempotency key "k1"
      And "acme" sends "Goodbye" to "+12025550100" by SMS using idempotency key "k1"
      Then the request is refused with "idempotency_mismatch"

    Scenario: The same key of another tenant
      When "acme" sends "Hello" to "+12025550100" by SMS using idempotency key "k1"
      And "globex" sends "Hi" to "+12025550100" by SMS using idempotency key "k1"
      Then the message becomes delivered
      And "+12025550100" shows "Hi" exactly once

  Rule: What cannot be sent is refused at once, with the place

    Scenario: Not a phone number
      When "acme" sends "Hello" to "0049301234" by SMS
      Then the request is refused with "invalid_phone" naming "/to"

    Scenario: Over the daily quota
      Given a tenant "acme" with a daily quota of 2 messages
      When "acme" sends "Hello" to "+12025550100" by SMS
      And "acme" sends "Hello" to "+12035550100" by SMS
      And "acme" sends "Hello" to "+12045550100" by SMS
      Then the request is refused with "quota_exceeded"
      And every message is accounted for

  Rule: A tenant sees its own and nothing else

    Scenario: Another tenant looks
      When "acme" sends "Hello" to "+12025550100" by SMS
      Then the message becomes delivered
      And tenant "globex" sees none of it
