"""The JSON API: the pages' services and rules, in Azure's names and one error shape."""
