"""What each part of the learner is worth: variants of one configuration, trained with several seeds and compared."""
