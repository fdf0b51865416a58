// Costs of steps: what follows from those that were seen.
#include "engine/step_costs.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace kvasir {
namespace {

TEST(StepCostsTest, KnowsNothingAtFirst) {
  StepCosts costs;
  EXPECT_FALSE(costs.PromptTokens(4, 2).has_value());
  EXPECT_TRUE(costs.WantsAnswersAlone());
  costs.Add(0, 512, 3000);
  EXPECT_FALSE(costs.PromptTokens(4, 2).has_value());  // nor of answers alone
  costs.Add(4, 0, 50);
  EXPECT_FALSE(costs.WantsAnswersAlone());
  EXPECT_FALSE(costs.PromptTokens(4, 2).has_value());  // nor of prompts
}

TEST(StepCostsTest, GivesThePromptsWhatAnswersMayBeSlower) {
  StepCosts costs;
  for (int i = 0; i < 100; ++i) {
    costs.Add(8, 0, 80);
    costs.Add(8, 20, 80 + 20 * 5);
  }
  EXPECT_NEAR(static_cast<double>(*costs.PromptTokens(8, 2)), 80 / 5, 1);
  EXPECT_NEAR(static_cast<double>(*costs.PromptTokens(8, 3)), 160 / 5, 1);
  EXPECT_EQ(*costs.PromptTokens(8, 1), 0);
  EXPECT_EQ(*costs.PromptTokens(9, 2), *costs.PromptTokens(8, 2));  // the nearest that is known
  for (int i = 0; i < 100; ++i) costs.Add(2, 0, 40);
  EXPECT_NEAR(static_cast<double>(*costs.PromptTokens(1, 2)), 40 / 5, 1);
  EXPECT_EQ(*costs.PromptTokens(6, 2), *costs.PromptTokens(8, 2));
}

TEST(StepCostsTest, FollowsAMachineThatSlowsDownAndSurvivesNoise) {
  StepCosts costs;
  for (int i = 0; i < 50; ++i) costs.Add(4, 0, 50);
  for (int i = 0; i < 50; ++i) costs.Add(4, 10, 100);
  EXPECT_NEAR(static_cast<double>(*costs.PromptTokens(4, 2)), 10, 1);
  for (int i = 0; i < 50; ++i) costs.Add(4, 10, 150);
  EXPECT_NEAR(static_cast<double>(*costs.PromptTokens(4, 2)), 5, 1);
  for (const double broken : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    costs.Add(4, 0, broken);
    costs.Add(4, 10, broken);
  }
  costs.Add(0, 0, 10);
  EXPECT_NEAR(static_cast<double>(*costs.PromptTokens(4, 2)), 5, 1);
  costs.Add(4, 1000, 1);  // no step is free
  EXPECT_GT(*costs.PromptTokens(4, 2), 0);
}

TEST(StepCostsTest, OneHiccupOfManyStepsCountsLittle) {
  StepCosts costs;
  costs.Add(4, 0, 50);
  for (int i = 0; i < 50; ++i) costs.Add(4, 10, 100);
  for (int i = 0; i < 60; ++i) costs.Add(4, 0, 50);
  costs.Add(4, 0, 150);
  EXPECT_NEAR(static_cast<double>(*costs.PromptTokens(4, 2)), 10, 1);
  // Seldom seen, a step counts more: it may be the machine that has changed.
  for (int i = 0; i < 64; ++i) costs.Add(4, 10, 100);
  costs.Add(4, 0, 100);
  EXPECT_GT(*costs.PromptTokens(4, 2), 11);
}

TEST(StepCostsTest, AsksForAnswersAloneNowAndThen) {
  StepCosts costs;
  costs.Add(3, 0, 50);
  int steps = 0;
  for (; !costs.WantsAnswersAlone(); ++steps) costs.Add(3, 10, 100);
  EXPECT_EQ(steps, 64);
  costs.Add(3, 0, 50);
  EXPECT_FALSE(costs.WantsAnswersAlone());
  for (int i = 0; i < 100; ++i) costs.Add(0, 512, 3000);  // nobody is kept waiting
  EXPECT_FALSE(costs.WantsAnswersAlone());
}

}  // namespace
}  // namespace kvasir
