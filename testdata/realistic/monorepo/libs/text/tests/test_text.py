import unittest

import text


class Join(unittest.TestCase):
    def test_words_are_joined(self):
        self.assertEqual(text.join("a", "b"), "a b")
