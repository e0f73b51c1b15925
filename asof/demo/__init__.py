"""`asof demo`: one event to a blocked verdict, then to a promoted one, on a real exchange's data, offline."""
