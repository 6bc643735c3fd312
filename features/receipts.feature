@receipts
Feature: Receipts
  Rule: Receipts only move a message forward, in any order and any number

    Scenario Outline: <case>
      When "acme" sends "Hello" to "<to>" by <channel>
      Then the message becomes <end>
      And "<to>" shows "Hello" exactly once
      And every message is accounted for

      Examples:
        | case                         | to           | channel  | end       |
        | twice                        | +12025550131 | SMS      | delivered |
        | twice                        | +12025550131 | WhatsApp | delivered |
        | out of order                 | +12025550132 | WhatsApp | read      |
        | before the submit response   | +12025550134 | SMS      | delivered |
        | before the submit response   | +12025550134 | WhatsApp | delivered |

    Scenario: No receipt
      When "acme" sends "Hello" to "+12025550133" by SMS
      Then the message becomes sent
