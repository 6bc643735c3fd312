@fairness
Feature: Fairness and overload
  Rule: One tenant's backlog does not hold up another's messages

    Scenario: A bulk backlog and an urgent message
      Given an SMS connector "trunk" for everybody limited to 10 per second
      And "acme" routes SMS by:
        | trunk | 1 |
      And "globex" routes SMS by:
        | trunk | 1 |
      When "acme" sends 150 messages by SMS in bulk
      And 2 seconds pass
      And "globex" sends "Code 1234" to "+12025550100" by SMS urgently
      And 1 second passes
      Then the message becomes delivered
      And "acme" still has 100 to 140 bulk messages waiting
      When 20 seconds pass
      Then "acme" still has 0 to 0 bulk messages waiting
      And at most 11 messages left in any 1 second window

    Scenario: A tenant's own bulk makes way for what is urgent
      Given "acme" may send 5 messages per second
      When "acme" sends 60 messages by SMS in bulk
      And 2 seconds pass
      And "acme" sends 20 messages by SMS urgently
      And 5 seconds pass
      Then "acme" still has 0 to 0 urgent messages waiting
      And "acme" still has 35 to 50 bulk messages waiting

    Scenario: One tenant's connector fails all the time
      Given "acme" retries SMS after "1s"
      And the SMS connector fails 1000 times with "temporary" then recovers
      When "acme" sends 50 messages by SMS in bulk
      And 5 seconds pass
      And "globex" sends "Hello" to "+12025550100" by SMS
      Then the message becomes delivered

  Rule: Too much at once is refused with the time to come again

    Scenario: More than the tenant may hand in
      Given "acme" may hand in 5 messages per second
      When "acme" hands in 20 messages at once
      Then 5 to 15 of them are refused with "tenant_rate_limited" and told when to come again
      When "globex" hands in 20 messages at once
      Then none of them are refused
      When 5 seconds pass
      And "acme" hands in 5 messages at once
      Then none of them are refused
      And every message is accounted for
