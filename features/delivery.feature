@smoke
Feature: A message arrives
  Rule: Each channel goes through its own protocol and comes back as what the provider reports

    Scenario Outline: <channel>
      When "acme" sends "Hello" to "<to>" by <channel>
      Then the message becomes <end>
      And "<to>" shows "Hello" exactly once
      And every message is accounted for

      Examples:
        | channel  | to                 | end       |
        | SMS      | +12025550100       | delivered |
        | WhatsApp | +12025550102       | read      |
        | e-mail   | delivered@sim.test | sent      |
        | webhook  | /sim/hook/200/a    | sent      |

    Scenario: A long text arrives as one message
      When "acme" sends "0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 end" to "+12025550100" by SMS
      Then the message becomes delivered
      And "+12025550100" shows "0123456789 end" exactly once

    Scenario: A template is filled in
      Given an SMS template "otp":
        """
        {{ name | default: "Hello" }}, your code is {{ code }}
        """
      When "acme" sends template "otp" to "+12025550100" by SMS with:
        | code | 123456 |
      Then the message becomes delivered
      And "+12025550100" shows "Hello, your code is 123456" exactly once

  Rule: What a provider refuses for good ends with its reason

    Scenario: An unknown subscriber
      When "acme" sends "Hello" to "+12025550120" by SMS
      Then the message becomes failed
      And the explanation says "ESME_RINVDSTADR"
      When "acme" sends "Hello again" to "+12025550120" by SMS
      Then the message becomes suppressed

    Scenario: A mailbox that does not exist
      When "acme" sends "Hello" to "hardbounce@sim.test" by e-mail
      Then the message becomes failed
      And every message is accounted for

    Scenario: A subscriber who cannot be reached
      When "acme" sends "Hello" to "+12025550122" by SMS
      Then the message becomes undelivered
