"""Tables, figures and files of finished runs."""
