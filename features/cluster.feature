# These need several nodes that can be harmed. Each is a process of its own, and time is real.
@cluster
Feature: Several nodes
  Background:
    Given a cluster of 3 nodes

  Rule: All nodes do one work

    Scenario: Each message goes once, whichever node takes it
      When "acme" sends 60 messages by SMS
      Then all messages are delivered
      And each of the nodes has had a part in it
      And nobody got it twice
      And every message is accounted for

    Scenario: The same request to several nodes at once
      When "acme" sends the same message 20 times at once using idempotency key "k1"
      Then the request is accepted as the same message
      And "acme" has 1 message in all

    Scenario: A quota counts what all nodes accept
      Given a tenant "acme" with a daily quota of 10 messages
      When "acme" hands in 30 messages to all nodes at once
      Then 20 to 20 of them are refused with "quota_exceeded" and told when to come again
      And "acme" has 10 messages in all
      And every message is accounted for

    Scenario: A rate holds over all nodes
      Given "acme" may send 20 messages per second
      When "acme" sends 80 messages by SMS
      Then all messages are delivered
      And each of the nodes has had a part in it
      And at most 55 messages left in any 2 second window
      And nobody got it twice

  Rule: A change is in force on all nodes when it is answered for

    Scenario: A campaign is paused
      Given an SMS template "greeting":
        """
        Hello {{ first_name }}
        """
      And an audience "customers" of 400 people
      And a campaign "diwali" of template "greeting" to "customers" at 60 per second
      When campaign "diwali" starts
      And campaign "diwali" is paused once 60 people have it
      Then for 2 seconds nobody else gets it
      When campaign "diwali" resumes
      Then campaign "diwali" ends completed
      And campaign "diwali" reports:
        | delivered | 400 |
      And nobody got it twice

    Scenario: Keys are revoked
      Given 10 keys of "acme" that all nodes have seen
      When they are revoked
      Then from that moment each of them opened nothing on any node

    Scenario: Somebody opts out
      Given "+12025550100" has opted out of SMS
      When "acme" sends "One" to "+12025550100" by SMS
      And "acme" sends "Two" to "+12025550100" by SMS
      And "acme" sends "Three" to "+12025550100" by SMS
      Then the message "One" becomes suppressed
      And the message "Two" becomes suppressed
      And the message "Three" becomes suppressed

  Rule: Nodes come and go, messages stay

    Scenario: A node is killed
      Given the SMS connector answers after 20 seconds
      When "acme" sends 30 messages by SMS
      And the node with the most messages under way is killed
      And the SMS connector answers at once
      Then all messages are delivered
      And some got it twice, of messages that are marked as possible duplicates
      And every message is accounted for

    Scenario: An account binds on as many nodes as it may
      Given the SMS connector of "acme" may have 2 binds
      Then exactly 2 nodes are bound
      Given the SMS connector answers after 20 seconds
      When "acme" sends 30 messages by SMS
      And the node with the most messages under way is killed
      And the SMS connector answers at once
      Then exactly 2 nodes are bound
      And all messages are delivered
      And every message is accounted for

    Scenario: Every node is replaced by another version
      When each node is replaced in turn while "acme" keeps sending
      Then all messages are delivered
      And nobody got it twice
      And every message is accounted for

  Rule: Without the broker messages go all the same

    Scenario: RabbitMQ is away
      When RabbitMQ is taken away
      And "acme" sends 30 messages by SMS
      Then all messages are delivered
      And nobody got it twice
      When RabbitMQ comes back
      And "acme" sends 30 messages by SMS
      Then all messages are delivered

  Rule: Without Redis each node keeps to its share

    Scenario: Redis is away
      Given "acme" may send 10 messages per second with bursts of 6
      When Redis is taken away
      And "acme" sends 50 messages by SMS
      Then all messages are delivered
      And at most 34 messages left in any 2 second window
      And nobody got it twice
      When Redis comes back
      And "acme" sends 40 messages by SMS
      Then all messages are delivered
      And at most 34 messages left in any 2 second window

  Rule: Without the store nothing is accepted and nothing is lost

    Scenario: PostgreSQL is away
      When "acme" sends 30 messages by SMS
      And PostgreSQL is taken away
      And "acme" sends "Goodbye" to "+12025550100" by SMS and does not ask again
      Then the request is refused with "storage_unavailable"
      When PostgreSQL comes back
      Then all messages are delivered
      And "+12025550100" has never got "Goodbye"
      And nobody got it twice without a mark
      And every message is accounted for
