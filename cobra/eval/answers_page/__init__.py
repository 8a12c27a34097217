"""The page that people look at: pictures, questions and answers in one HTML file."""
