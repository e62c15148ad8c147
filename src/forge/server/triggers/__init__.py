"""What starts runs by itself, and what is told about them: webhooks, schedules, Git, notifications."""
