"""LISTENERS: log lines, the overview page, metrics and notifications, all made from events. The core knows none of them."""
