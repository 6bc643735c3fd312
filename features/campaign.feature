@campaign
Feature: Campaigns
  Background:
    Given an SMS template "greeting":
      """
      Hello {{ first_name }}
      """

  Rule: Everybody in the audience gets it once, and the report adds up

    Scenario: Some have opted out
      Given an audience "customers" of 1000 people, 10 of them opted out
      And a campaign "diwali" of template "greeting" to "customers"
      When campaign "diwali" starts
      Then campaign "diwali" ends completed
      And campaign "diwali" reports:
        | delivered  | 990 |
        | suppressed | 10  |
      And nobody got it twice
      And every message is accounted for

  Rule: A pause stops it, a resume goes on where it was

    Scenario: Paused and resumed
      Given an audience "customers" of 300 people
      And a campaign "diwali" of template "greeting" to "customers" at 20 per second
      When campaign "diwali" starts
      And campaign "diwali" is paused once 60 people have it
      Then nobody else gets it while 5 minutes pass
      When campaign "diwali" resumes
      Then campaign "diwali" ends completed
      And campaign "diwali" reports:
        | delivered | 300 |
      And nobody got it twice

    Scenario: Stopped
      Given an audience "customers" of 300 people
      And a campaign "diwali" of template "greeting" to "customers" at 20 per second
      When campaign "diwali" starts
      And campaign "diwali" is stopped once 60 people have it
      Then nobody else gets it while 5 minutes pass
      And campaign "diwali" is stopped
      And every message is accounted for
